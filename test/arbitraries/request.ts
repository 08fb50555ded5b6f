/** What a runtime may put into the environment: names that the specification takes, and any text at all. */
import fc from 'fast-check';

const FIRST = 'abcxyzABCXYZ0189'.split('');
const LATER = [...FIRST, '_', '.', '-'];

/** Container ids and network names as the specification allows them. */
export function names(): fc.Arbitrary<string> {
  return fc
    .tuple(fc.constantFrom(...FIRST), fc.array(fc.constantFrom(...LATER), { maxLength: 70 }))
    .map(([first, later]) => first + later.join(''));
}

/** Texts near the border of what is a name: mostly its characters, now and then another one. */
export function nearNames(): fc.Arbitrary<string> {
  const odd = ['/', ':', ' ', '\n', '%', '\0', '..', '../', 'é', '\u{1f9ca}', '\u2028', '"'];
  return fc
    .array(fc.oneof({ weight: 6, arbitrary: fc.constantFrom(...LATER) }, fc.constantFrom(...odd)), {
      minLength: 1,
      maxLength: 20,
    })
    .map((parts) => parts.join(''));
}

/** Names that mean something to JavaScript's objects, and nothing to the kernel. */
export const PROTOTYPE_NAMES = ['__proto__', 'constructor', 'toString', 'hasOwnProperty'];
