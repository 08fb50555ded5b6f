import { ERRNO, type Fault, errnoName } from '../../model/errno.ts';

/** The kernel's refusal behind an error that node:fs threw; any other error is thrown on. */
export function faultOf(error: unknown): Fault {
  if (!(error instanceof Error) || !('code' in error) || !('errno' in error)) throw error;
  const { code, errno } = error;
  if (typeof code === 'string' && Object.hasOwn(ERRNO, code))
    return { errno: code as keyof typeof ERRNO, text: '' };
  // node:fs has it negative.
  return { errno: errnoName(Math.abs(Number(errno))), text: '' };
}
