/** The versions of the specification that configurations may have (CNI specification, "Released versions"). */
export const SUPPORTED_VERSIONS = [
  '0.1.0',
  '0.2.0',
  '0.3.0',
  '0.3.1',
  '0.4.0',
  '1.0.0',
  '1.1.0',
] as const;
export type CniVersion = (typeof SUPPORTED_VERSIONS)[number];

/** What an answer calls its own version when the question has none that is supported. */
export const CURRENT_VERSION: CniVersion = '1.1.0';

/** The version of a configuration that names none: from before versions were written (pkg/version/conf.go of libcni). */
export const UNNAMED_VERSION: CniVersion = '0.1.0';

/** The supported version with this text, which must match exactly. */
export function findVersion(text: unknown): CniVersion | undefined {
  return SUPPORTED_VERSIONS.find((version) => version === text);
}

/** Is a version older than the one that brought something? Any text may be compared: what is no number counts as zero. */
export function isBefore(version: string, limit: CniVersion): boolean {
  const a = version.split('.').map((part) => Number(part) || 0);
  const b = limit.split('.').map(Number);
  const at = b.findIndex((part, i) => (a[i] ?? 0) !== part);
  return at >= 0 && (a[at] ?? 0) < (b[at] ?? 0);
}
