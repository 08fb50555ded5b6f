import type { Fault } from '../../model/errno.ts';
import type { NetnsName } from '../../model/host.ts';
import { isFault } from './socket.ts';

/** The answer to a question, or an error that names the netns, what was asked for, and the kernel's words. */
export function expectAnswer<T extends object>(
  answer: T | Fault,
  netns: NetnsName,
  what: string,
): T {
  if (!isFault(answer)) return answer;
  const text = answer.text === '' ? '' : `, "${answer.text}"`;
  throw new Error(`Cannot read ${what} in netns "${netns}": ${answer.errno}${text}`);
}
