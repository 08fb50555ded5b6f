import { hasIpv6 } from '../connected.ts';
import { type Host, findLink, getLink, withLink } from '../host.ts';
import { getNetns } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import type { Link, LinkRef } from '../link.ts';
import { type Mac, isUnicastMac } from '../mac.ts';
import { flushIpv6, followMaster, linkDown, linkUp, startIpv6 } from '../netdev.ts';
import { type OpKind, type Outcome, done, refuse } from '../op.ts';
import { enslave } from './enslave.ts';
import { mtuFault } from './link-add.ts';

/** One attribute of a link; the message that sets it carries no other (K-1.13). */
export type LinkAttribute =
  | { readonly up: boolean }
  | { readonly mtuBytes: number }
  | { readonly mac: Mac }
  | { readonly promiscuous: boolean }
  | { readonly alias: string }
  | { readonly master: Ifname | null };

/** Changes one attribute of a link. */
export interface LinkSet {
  readonly ifname: Ifname;
  readonly set: LinkAttribute;
}

/** IFALIASZ - 1 (include/uapi/linux/if.h). */
const ALIAS_MAX_BYTES = 255;

function setMtu(before: Host, ref: LinkRef, link: Link, mtuBytes: number): Outcome {
  const fault = link.kind === 'veth' || link.kind === 'bridge' ? mtuFault(mtuBytes) : undefined;
  if (fault) return fault;
  if (link.mtuBytes === mtuBytes && link.kind !== 'bridge') return done(before);
  const changed: Link =
    link.kind === 'bridge'
      ? { ...link, mtuBytes, mtuChosen: link.mtuChosen || link.mtuBytes !== mtuBytes }
      : { ...link, mtuBytes };
  const had = hasIpv6(getNetns(before, ref.netns), link);
  let host = withLink(before, ref.netns, changed);
  const has = hasIpv6(getNetns(host, ref.netns), changed);
  if (had && !has) host = flushIpv6(host, ref);
  if (!had && has) host = startIpv6(host, ref);
  return done(followMaster(host, ref.netns, link.port?.master));
}

function setMac(before: Host, ref: LinkRef, link: Link, mac: Mac): Outcome {
  if (link.kind === 'loopback') return refuse('EADDRNOTAVAIL');
  if (!isUnicastMac(mac)) return refuse('EADDRNOTAVAIL', 'Invalid hardware address');
  const changed: Link =
    link.kind === 'bridge' ? { ...link, mac, macChosen: true } : { ...link, mac };
  return done(followMaster(withLink(before, ref.netns, changed), ref.netns, link.port?.master));
}

function setAttribute(host: Host, ref: LinkRef, set: LinkAttribute): Outcome {
  const link = getLink(host, ref);
  if ('up' in set) return done(set.up ? linkUp(host, ref) : linkDown(host, ref));
  if ('mtuBytes' in set) return setMtu(host, ref, link, set.mtuBytes);
  if ('mac' in set) return setMac(host, ref, link, set.mac);
  if ('promiscuous' in set)
    return done(withLink(host, ref.netns, { ...link, promiscuous: set.promiscuous }));
  if ('master' in set) return enslave(host, ref, set.master);
  return set.alias.length > ALIAS_MAX_BYTES
    ? refuse('ERANGE')
    : done(withLink(host, ref.netns, { ...link, alias: set.alias }));
}

function describeAttribute(set: LinkAttribute): string {
  if ('up' in set) return set.up ? 'up' : 'down';
  if ('mtuBytes' in set) return `mtu ${set.mtuBytes}`;
  if ('mac' in set) return `address ${set.mac}`;
  if ('promiscuous' in set) return `promisc ${set.promiscuous ? 'on' : 'off'}`;
  if ('master' in set) return set.master === null ? 'nomaster' : `master ${set.master}`;
  return `alias "${set.alias}"`;
}

export const linkSet: OpKind<'link.set'> = {
  apply: (host, op) => (findLink(host, op) ? setAttribute(host, op, op.set) : refuse('ENODEV')),
  describe: (op) => [`ip link set ${op.ifname} ${describeAttribute(op.set)}`],
  sign: () => '~',
  reads: ({ netns, ifname, set }) => {
    const link = `link ${netns}/${ifname}`;
    if ('up' in set) return [link, `attribute ${netns}/${ifname}`, `conf ${netns}/${ifname}`];
    return 'master' in set && set.master !== null ? [link, `link ${netns}/${set.master}`] : [link];
  },
  writes: ({ netns, ifname, set }) => {
    if ('up' in set) return [`up ${netns}/${ifname}`];
    return 'master' in set
      ? [`attribute ${netns}/${ifname}`, `master ${netns}/${ifname}`]
      : [`attribute ${netns}/${ifname}`];
  },
  removes: () => [],
};
