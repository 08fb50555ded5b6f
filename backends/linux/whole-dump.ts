/** Questions about everything that a netns has of a kind: the same bytes for every netns, and encoding them takes as long as sending. */

/** Encodes such a question; one that may ask about a single link is given 0, for all. */
type WholeDump = (all: 0) => Uint8Array;

const known = new Map<WholeDump, Uint8Array>();

/** The bytes of the question, encoded once. They are for one exchange at a time: a socket writes its number into them. */
export function wholeDump(encode: WholeDump): Uint8Array {
  let question = known.get(encode);
  if (!question) {
    question = encode(0);
    known.set(encode, question);
  }
  return question;
}
