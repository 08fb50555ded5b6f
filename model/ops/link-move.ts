import { findByAnyName } from '../altname.ts';
import { type NetnsName, findLink, findNetns } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { movesNowhere } from '../kernel-profile.ts';
import { type OpKind, done, refuse } from '../op.ts';
import { moveLink } from '../relocate.ts';

/**
 * Puts a link into another netns, under the same name: a message with another name would have moved the link when the
 * name turns out to be taken (K-2.3).
 */
export interface LinkMove {
  readonly ifname: Ifname;
  readonly toNetns: NetnsName;
}

export const linkMove: OpKind<'link.move'> = {
  apply: (host, { netns, ifname, toNetns }) => {
    if (!findNetns(host, toNetns)) return refuse('ENOENT');
    const link = findLink(host, { netns, ifname });
    if (!link) return refuse('ENODEV');
    if (toNetns === netns && movesNowhere(host.kernel)) return done(host);
    if (link.kind === 'loopback' || link.kind === 'bridge')
      return refuse('EINVAL', 'The interface netns is immutable');
    if (toNetns === netns) return done(host);
    if (findByAnyName(host, { netns: toNetns, ifname }))
      return refuse('EEXIST', 'An interface with the same name exists in the target netns');
    const taken = link.altnames?.find((name) =>
      findByAnyName(host, { netns: toNetns, ifname: name as Ifname }),
    );
    if (taken !== undefined)
      return refuse('EEXIST', `An interface with the altname ${taken} exists in the target netns`);
    return done(moveLink(host, { netns, ifname }, toNetns));
  },
  describe: (op) => [`ip link set ${op.ifname} netns ${op.toNetns}`],
  sign: () => '~',
  reads: (op) => [`netns ${op.netns}`, `netns ${op.toNetns}`, `conf ${op.toNetns}/default`],
  writes: (op) => [`link ${op.toNetns}/${op.ifname}`],
  removes: (op) => [`link ${op.netns}/${op.ifname}`],
};
