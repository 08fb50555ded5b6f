/** What SQLite says, as an answer of CNI. */
import { SQLiteError } from 'bun:sqlite';
import { CNI_ERROR, CniError } from '../cni/error.ts';

/** The state file is not what was written to it: it cannot be used, and another is to take its place. */
export class DamagedStateError extends CniError {
  constructor(file: string, details: string) {
    super(CNI_ERROR.io, `state file ${file} is damaged`, details);
  }
}

/** The state file is new to this machine, and what the kernel has already is to be recorded first. */
export class NewStateError extends CniError {
  constructor(file: string) {
    super(CNI_ERROR.io, `state file ${file} is new`, 'nobody has recorded what the kernel has');
  }
}

/** Does it say that the file is not what was written to it? */
export function isDamage(error: unknown): boolean {
  // A record that is no JSON any more: SQLite does not notice what happens within a text.
  if (error instanceof SyntaxError) return true;
  return (
    error instanceof SQLiteError &&
    (error.code?.startsWith('SQLITE_CORRUPT') === true || error.code === 'SQLITE_NOTADB')
  );
}

/** Does it say that others held the file for too long? */
export function isBusy(error: unknown): boolean {
  return error instanceof SQLiteError && error.code?.startsWith('SQLITE_BUSY') === true;
}

/** Turns what SQLite says into an answer: busy is for another time, anything else names the file. */
export function asCniError(error: unknown, file: string): unknown {
  if (isDamage(error))
    return new DamagedStateError(file, error instanceof Error ? error.message : String(error));
  if (!(error instanceof SQLiteError)) return error;
  if (isBusy(error)) {
    return new CniError(
      CNI_ERROR.tryAgainLater,
      `state file ${file} is in use by another call`,
      error.message,
    );
  }
  return new CniError(
    CNI_ERROR.io,
    `cannot use state file ${file}: ${error.message}`,
    error.code ?? '',
  );
}

/** Does `work` on the state file `file`; throws a CniError for what SQLite throws. */
export function guarded<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw asCniError(error, file);
  }
}
