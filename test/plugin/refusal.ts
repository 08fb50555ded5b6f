import { CniError } from '../../plugin/cni/error.ts';

/** The error that a call ends with, as `CODE MESSAGE | DETAILS`. Fails the test when it ends with none, or with another throw. */
export function refusal(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (!(error instanceof CniError)) throw error;
    return `${error.code} ${error.message}${error.details === '' ? '' : ` | ${error.details}`}`;
  }
  throw new Error('it was not refused');
}
