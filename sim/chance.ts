/** What the kernel decides by chance, decided by a seed: the same seed, the same chance. */

/** FNV-1a over UTF-16 code units (http://www.isthe.com/chongo/tech/comp/fnv). */
function hash(text: string): number {
  let bits = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1)
    bits = Math.imul(bits ^ text.charCodeAt(index), 0x01000193);
  return bits >>> 0;
}

/** Spreads what differs in few bits over all (the finalizer of MurmurHash3). */
function mixed(bits: number): number {
  let mix = bits;
  mix = Math.imul(mix ^ (mix >>> 16), 0x85ebca6b);
  mix = Math.imul(mix ^ (mix >>> 13), 0xc2b2ae35);
  return (mix ^ (mix >>> 16)) >>> 0;
}

/** A number from 0 up to, and without, 1, for this question. `seed` null: nothing is left to chance, and it is 0.5. */
export function chance(seed: number | null, ...question: readonly (string | number)[]): number {
  return seed === null ? 0.5 : mixed(hash([seed, ...question].join(' '))) / 2 ** 32;
}
