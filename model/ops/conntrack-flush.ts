import { type Family, type Ip, familyOf } from '../ip.ts';
import type { Transport } from '../nftables.ts';
import { type OpKind, done } from '../op.ts';

/** A port that connections were begun to. */
export interface FlowPort {
  readonly protocol: Transport;
  readonly port: number;
}

/**
 * Forgets tracked connections: every one of an address, which has it as source or destination, as it began or as its answers
 * come (after NAT the two differ); or every one that was begun to one of these ports. Where connections are not tracked there
 * is nothing to forget.
 */
export type ConntrackFlush =
  | { readonly ip: Ip }
  | { readonly family: Family; readonly ports: readonly FlowPort[] };

const FIELDS = ['orig-src', 'orig-dst', 'reply-src', 'reply-dst'].join(' ');

export const conntrackFlush: OpKind<'conntrack.flush'> = {
  apply: (host) => done(host),
  // conntrack ends with 1 when nothing matches, and takes several fields as "and".
  describe: (op) => {
    if ('ports' in op)
      return op.ports.map(
        ({ protocol, port }) =>
          `sh -c 'conntrack -D -f ipv${op.family} -p ${protocol} --orig-port-dst ${port} || true'`,
      );
    const { ip } = op;
    const family = familyOf(ip) === 6 ? '-f ipv6 ' : '';
    // One line, and one command to be run in another netns.
    return [`sh -c 'for f in ${FIELDS}; do conntrack -D ${family}--$f ${ip} || true; done'`];
  },
  sign: () => '~',
  reads: ({ netns }) => [`netns ${netns}`],
  writes: () => [],
  removes: () => [],
};
