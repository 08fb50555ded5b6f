/** Values as one writes them for nft, of which no two of different slots are the same. */
import fc from 'fast-check';

/** A piece of text. */
export type Text = fc.Arbitrary<string>;

/** One of several texts, which are made where it is drawn. */
export function either(...texts: readonly Text[]): Text {
  return fc.oneof(...texts);
}

/** Texts with a space between them, without those that are empty. */
export function words(...parts: readonly (string | Text)[]): Text {
  return fc
    .tuple(...parts.map((part) => (typeof part === 'string' ? fc.constant(part) : part)))
    .map((all) => all.filter((part) => part !== '').join(' '));
}

/** It or nothing. */
export function maybe(text: Text): Text {
  return fc.option(text, { nil: '' });
}

/** Values of a slot: those of two slots are never the same. */
export type At = (slot: number) => Text;

/** How many slots there are. */
export const SLOTS = 16;

/** Addresses. */
export const address4: At = (slot) =>
  fc.integer({ min: 1, max: 200 }).map((n) => `10.${slot}.0.${n}`);
export const address6: At = (slot) =>
  fc.integer({ min: 1, max: 200 }).map((n) => `fd00:${slot}::${n}`);
const PART = 1000;
/** Ports, and marks. */
export const port: At = (slot) =>
  fc.integer({ min: 1, max: PART - 51 }).map((n) => `${slot * PART + n}`);
export const mark: At = (slot) =>
  fc.integer({ min: 1, max: PART - 51 }).map((n) => `0x${(slot * PART + n).toString(16)}`);

/** All from one number to the next. */
export function between(at: At, slot: number): Text {
  return fc.tuple(at(slot), fc.integer({ min: 1, max: 50 })).map(([first, more]) => {
    const [, start = '', last = '0'] = /^(.*?)([0-9a-f]+|\d+)$/.exec(first) ?? [];
    if (start.includes('.')) {
      const end = Number(first.split('.')[3]) + more;
      return `${first}-${first.replace(/\d+$/, `${end}`)}`;
    }
    if (start.includes(':'))
      return `${first}-${start}${(Number.parseInt(last, 16) + more).toString(16)}`;
    return first.startsWith('0x')
      ? `${first}-0x${(Number(first) + more).toString(16)}`
      : `${first}-${Number(first) + more}`;
  });
}

/** Prefixes of the addresses of a slot. */
export const prefix4: At = (slot) =>
  fc.constantFrom(
    `10.${slot}.0.0/16`,
    `10.${slot}.4.0/22`,
    `10.${slot}.0.0/31`,
    `10.${slot}.128.0/17`,
  );
export const prefix6: At = (slot) =>
  fc.constantFrom(`fd00:${slot}::/32`, `fd00:${slot}:8000::/33`, `fd00:${slot}::/64`);

const LINKS = ['lo', 'cni0', 'eth0', 'v-d', 'wlp1s0', 'docker0', 'br-long-enough', 'x'];
/** Names of links, and the beginnings of such. */
export const link: At = (slot) => fc.constant(`"${LINKS[slot % LINKS.length]}"`);
export const links: At = (slot) =>
  fc.constantFrom(
    `"${LINKS[slot % LINKS.length]}"`,
    `"${(LINKS[slot % LINKS.length] ?? '').slice(0, 3)}*"`,
  );

/** Elements between braces, no two of which overlap. */
export function elements(at: At, min = 1, slots = SLOTS, max = 12): Text {
  return fc
    .uniqueArray(fc.nat(slots - 1), { minLength: min, maxLength: Math.min(max, slots) })
    .chain((chosen) => fc.tuple(...chosen.map(at)))
    .map((all) => `{ ${all.join(', ')} }`);
}

/** Otherwise, now and then. */
export const negation: Text = fc.constantFrom('', '', '!=');
const comparison: Text = fc.constantFrom('<', '>', '<=', '>=');

/** A value, a range, or any of several. */
export function values(at: At, more: At): Text {
  return fc.nat(SLOTS - 1).chain((slot) =>
    either(
      words(negation, at(slot)),
      words(negation, more(slot)),
      words(negation, between(at, slot)),
      words(negation, elements(at, 2)),
      words(
        negation,
        elements((each) => either(at(each), more(each), between(at, each)), 2),
      ),
      words(comparison, at(slot)),
    ),
  );
}
