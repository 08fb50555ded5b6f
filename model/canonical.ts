/** Any value that JSON holds; `undefined` fields count as absent. */
type Json = unknown;

/** JSON text with the keys of every object in order, so that equal values give equal text. */
export function canonicalJson(value: Json): string {
  return JSON.stringify(value, (_key, part: Json) =>
    part !== null && typeof part === 'object' && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}

/** Are two values equal as JSON, whatever the order of their keys? */
export function sameJson(a: Json, b: Json): boolean {
  return a === b || canonicalJson(a) === canonicalJson(b);
}
