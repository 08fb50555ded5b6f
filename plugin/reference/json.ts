/** Looking into JSON that others wrote, of which nothing is sure. */

export type JsonObject = Readonly<Record<string, unknown>>;

/** The value as an object, undefined when it is something else. */
export function findObject(value: unknown): JsonObject | undefined {
  return value !== null && typeof value === 'object' && !Array.isArray(value)
    ? { ...value }
    : undefined;
}

/** The objects of an array; whatever else it holds is left out, and what is no array holds none. */
export function objectsOf(value: unknown): JsonObject[] {
  return Array.isArray(value) ? value.map(findObject).filter((each) => each !== undefined) : [];
}

/** The value as text, '' when it is something else. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
