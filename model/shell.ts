/** What has no meaning of its own for a shell, in double quotes or none. */
const PLAIN = /^[\w./:@=+, \t-]*$/;

/** A text as one word for a shell that takes nothing in it for its own. */
export function quoteForShell(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Does a shell read this as it stands, beside what it splits into words? */
export function isPlain(text: string): boolean {
  return PLAIN.test(text);
}
