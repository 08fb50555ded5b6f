/** An attachment whose addresses another plugin gives: its part of ADD and DEL. */
import { type Attachment, formatKey } from '../attachment.ts';
import type { CallContext } from './context.ts';

/** The standard input of a delegate's DEL: that of its ADD, with what the runtime now says ADD answered. */
function withPrevResult(stdin: string, prevResult: unknown): string {
  if (prevResult === undefined || prevResult === null) return stdin;
  return JSON.stringify({ ...(JSON.parse(stdin) as object), prevResult });
}

/** Has the plugin that gave the addresses take them back, if it was another. Throws its error. Never to be called under the lock. */
export function releaseDelegated(
  context: CallContext,
  { ipam, key, netns }: Attachment,
  prevResult: unknown,
): void {
  if (!ipam) return;
  context.delegate({
    type: ipam.type,
    verb: 'DEL',
    stdin: withPrevResult(ipam.stdin, prevResult),
    key,
    netns,
  });
  context.log('info', `${ipam.type} took back the addresses of ${formatKey(key)}`);
}
