/** The specification's error codes (CNI specification, section 5, "Error"), and from 100 on our own. */
export const CNI_ERROR = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  invalidEnvironment: 4,
  io: 5,
  decode: 6,
  invalidConfig: 7,
  /** The reference library's: the netns given is the plugin's own. */
  invalidNetns: 8,
  tryAgainLater: 11,
  /** STATUS: ADD would not succeed. */
  notAvailable: 50,
  /** The kernel refused an operation; everything was undone. */
  kernel: 100,
  /** A link has the name that one of ours needs, or the attachment exists already. */
  taken: 101,
  /** No address is left. */
  exhausted: 102,
  /** CHECK found differences. */
  drift: 103,
  /** A mistake in this program. */
  internal: 999,
} as const;

/** An answer that is an error: what the runtime shows to people. */
export class CniError extends Error {
  override readonly name = 'CniError';
  readonly code: number;
  /** More about it, '' when there is nothing more to say. */
  readonly details: string;

  constructor(code: number, message: string, details = '') {
    super(message);
    this.code = code;
    this.details = details;
  }
}

/** The error as it goes to standard output (section 5, "Error"; four spaces and no final newline as the reference prints it). */
export function formatError(error: CniError, cniVersion: string): string {
  const { code, message, details } = error;
  return JSON.stringify(
    { cniVersion, code, msg: message, ...(details === '' ? {} : { details }) },
    null,
    4,
  );
}
