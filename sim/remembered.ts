/**
 * What follows from values that are never changed, found once for each of them: a netns is asked the same by every packet
 * that comes by. It is forgotten together with the value.
 */

/** Whatever can be told from nothing found yet. */
type Some = object | string | boolean | null;

/** A function of a value, which looks once at each. */
export function oncePer<Of extends object, Found extends Some>(
  find: (of: Of) => Found,
): (of: Of) => Found {
  const known = new WeakMap<Of, Found>();
  return (of) => {
    const before = known.get(of);
    if (before !== undefined) return before;
    const found = find(of);
    known.set(of, found);
    return found;
  };
}

/** So many answers about one value are kept; then they are forgotten, since nobody may ever ask for most of them again. */
const MOST_ANSWERS = 10_000;

/** What is asked of a value beside it: a name, a family, an address, or a part of it. */
type Word = string | number | object | null;

/** A function of a value and of a word, which finds each answer once. */
export function oncePerWord<Of extends object, A extends Word, Found extends Some>(
  find: (of: Of, a: A) => Found,
): (of: Of, a: A) => Found {
  const answersOf = oncePer<Of, Map<A, Found>>(() => new Map());
  return (of, a) => {
    const answers = answersOf(of);
    const before = answers.get(a);
    if (before !== undefined) return before;
    if (answers.size === MOST_ANSWERS) answers.clear();
    const found = find(of, a);
    answers.set(a, found);
    return found;
  };
}

/** Answers by the three words of what was asked. */
class Answers<A, B, C, Found> {
  #count = 0;
  readonly #by = new Map<A, Map<B, Map<C, Found>>>();

  find(a: A, b: B, c: C): Found | undefined {
    return this.#by.get(a)?.get(b)?.get(c);
  }

  keep(a: A, b: B, c: C, found: Found): void {
    if (this.#count === MOST_ANSWERS) {
      this.#by.clear();
      this.#count = 0;
    }
    this.#count += 1;
    const ofA = this.#by.get(a) ?? new Map<B, Map<C, Found>>();
    this.#by.set(a, ofA);
    const ofB = ofA.get(b) ?? new Map<C, Found>();
    ofA.set(b, ofB);
    ofB.set(c, found);
  }
}

/** A function of a value and of three words, which finds each answer once. */
export function oncePerWords<
  Of extends object,
  A extends Word,
  B extends Word,
  C extends Word,
  Found extends Some,
>(find: (of: Of, a: A, b: B, c: C) => Found): (of: Of, a: A, b: B, c: C) => Found {
  const answersOf = oncePer<Of, Answers<A, B, C, Found>>(() => new Answers());
  return (of, a, b, c) => {
    const answers = answersOf(of);
    const before = answers.find(a, b, c);
    if (before !== undefined) return before;
    const found = find(of, a, b, c);
    answers.keep(a, b, c, found);
    return found;
  };
}
