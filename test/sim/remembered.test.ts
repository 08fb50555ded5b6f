import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { oncePerWord, oncePerWords } from '../../sim/remembered.ts';

const VALUES = [{ name: 'a' }, { name: 'b' }];

/** What is asked: of which value, and by which words. */
function questions() {
  const word = fc.constantFrom('x', 'y', null);
  return fc.array(fc.tuple(fc.constantFrom(...VALUES), word, word, word), { maxLength: 40 });
}

describe('what is remembered', () => {
  it('is what would be found, and is looked for once', () => {
    fc.assert(
      fc.property(questions(), (asked) => {
        const looked: string[] = [];
        const look = (...words: unknown[]): { text: string } => {
          const text = JSON.stringify(words);
          looked.push(text);
          return { text };
        };
        const byOne = oncePerWord((value: object, a: string | null) => look(value, a));
        const byThree = oncePerWords(
          (value: object, a: string | null, b: string | null, c: string | null) =>
            look(value, a, b, c),
        );
        for (const [value, a, b, c] of asked) {
          expect(byOne(value, a).text).toBe(JSON.stringify([value, a]));
          expect(byThree(value, a, b, c).text).toBe(JSON.stringify([value, a, b, c]));
        }
        expect(looked).toHaveLength(new Set(looked).size);
      }),
    );
  });

  it('is right also when there was too much of it', () => {
    const [of] = VALUES;
    const byOne = oncePerWord((_: object, a: number) => `${a}`);
    const byThree = oncePerWords((_: object, a: number, b: number, c: null) => ({
      text: [a, b, c],
    }));
    for (const number of [...Array(25_000).keys(), 0, 1]) {
      expect(byOne(of as object, number)).toBe(`${number}`);
      const [a, b] = [number % 100, Math.floor(number / 100)];
      expect(byThree(of as object, a, b, null)).toEqual({ text: [a, b, null] });
    }
  });
});
