declare const ifnameBrand: unique symbol;

/** A link's name that the kernel accepts as it stands. */
export type Ifname = string & { readonly [ifnameBrand]: true };

/** IFNAMSIZ - 1 (include/uapi/linux/if.h). */
export const IFNAME_MAX_BYTES = 15;

/**
 * Why a text cannot be a link name, or undefined (K-1.1; net/core/dev.c, dev_valid_name). `%` is
 * refused although the kernel takes it: there it is a template (`veth%d`), never a name.
 */
export function ifnameProblem(text: string): string | undefined {
  if (text === '') return 'it is empty';
  // The kernel counts bytes of UTF-8; `encodeURIComponent` writes each beyond ASCII as %XX.
  const bytes = encodeURIComponent(text).replaceAll(/%../g, '.').length;
  if (bytes > IFNAME_MAX_BYTES)
    return `it has ${bytes} bytes, the kernel takes ${IFNAME_MAX_BYTES}`;
  if (text === '.' || text === '..') return 'it is . or ..';
  if (/[/:%\s]/.test(text)) return 'it contains /, :, % or white space';
  return undefined;
}

/** Reads a link name, or throws an error that says what is wrong with it. */
export function parseIfname(text: string): Ifname {
  const problem = ifnameProblem(text);
  if (problem !== undefined) throw new Error(`"${text}" cannot be a link name: ${problem}`);
  return text as Ifname;
}
