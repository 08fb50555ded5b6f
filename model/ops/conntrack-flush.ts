import { type Ip, familyOf } from '../ip.ts';
import { type OpKind, done } from '../op.ts';

/**
 * Forgets every tracked connection of an address: those that have it as source or destination, as they began or as
 * their answers come (after NAT the two differ). Where connections are not tracked there is nothing to forget.
 */
export interface ConntrackFlush {
  readonly ip: Ip;
}

const FIELDS = ['orig-src', 'orig-dst', 'reply-src', 'reply-dst'].join(' ');

export const conntrackFlush: OpKind<'conntrack.flush'> = {
  apply: (host) => done(host),
  // conntrack ends with 1 when nothing matches, and takes several fields as "and".
  describe: ({ ip }) => {
    const family = familyOf(ip) === 6 ? '-f ipv6 ' : '';
    // One line, and one command to be run in another netns.
    return [`sh -c 'for f in ${FIELDS}; do conntrack -D ${family}--$f ${ip} || true; done'`];
  },
  sign: () => '~',
  reads: ({ netns }) => [`netns ${netns}`],
  writes: () => [],
  removes: () => [],
};
