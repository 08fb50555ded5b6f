import { withOwnMac, withoutStrangers } from '../fdb.ts';
import { type Host, findLink, getLink, getNetns, withLink } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { trustsSameMac } from '../kernel-profile.ts';
import { type Link, type LinkRef, MTU_MAX_BYTES, MTU_MIN_BYTES, TX_QUEUE_LENGTH } from '../link.ts';
import { type Mac, ZERO_MAC, isUnicastMac } from '../mac.ts';
import { collides, isBusyMac } from '../macvlan.ts';
import { changeMtu, claimMac, followMaster, linkDown, linkUp } from '../netdev.ts';
import { type OpKind, type Outcome, done, refuse } from '../op.ts';
import { lowerOf } from '../upper.ts';
import { largestMtu } from '../vxlan.ts';
import { enslave } from './enslave.ts';
import { mtuFault } from './link-add.ts';

/** One attribute of a link; the message that sets it carries no other (K-1.13). */
export type LinkAttribute =
  | { readonly up: boolean }
  | { readonly mtuBytes: number }
  | { readonly mac: Mac }
  | { readonly promiscuous: boolean }
  | { readonly allMulticast: boolean }
  | { readonly txQueueLength: number }
  | { readonly group: number }
  | { readonly alias: string }
  | { readonly master: Ifname | null }
  | { readonly vlanFiltering: boolean };

/** Changes one attribute of a link. */
export interface LinkSet {
  readonly ifname: Ifname;
  readonly set: LinkAttribute;
}

/** IFALIASZ - 1 (include/uapi/linux/if.h). */
const ALIAS_MAX_BYTES = 255;

/** The kinds with limits of their own for MTUs (K-1.12). */
const LIMITED: ReadonlySet<Link['kind']> = new Set(['veth', 'bridge', 'vxlan', 'macvlan']);

/** Has it no largest MTU? A macvlan has that of its link, and an ifb none (K-1.18; drivers/net/macvlan.c, macvlan_common_newlink). */
function isUnlimited(host: Host, link: Link): boolean {
  return (
    link.kind === 'macvlan' && link.lower !== null && findLink(host, link.lower)?.kind === 'ifb'
  );
}

function setMtu(before: Host, ref: LinkRef, link: Link, mtuBytes: number): Outcome {
  const isTooLarge = mtuBytes > MTU_MAX_BYTES && !isUnlimited(before, link);
  const isLimited = LIMITED.has(link.kind) && (isTooLarge || mtuBytes < MTU_MIN_BYTES);
  const fault = isLimited ? mtuFault(mtuBytes) : undefined;
  if (fault) return fault;
  // What a link has already is not looked at, not even by routes with a metric of their own
  // (net/core/dev.c, netif_set_mtu_ext).
  if (link.mtuBytes === mtuBytes) return done(before);
  const below = lowerOf(link);
  const lower = below && findLink(before, below);
  if (link.kind === 'vxlan' && lower && mtuBytes > largestMtu(link, lower)) return refuse('EINVAL');
  if (link.kind === 'macvlan' && lower && mtuBytes > lower.mtuBytes) return refuse('EINVAL');
  const chosen =
    link.kind === 'bridge' ? withLink(before, ref.netns, { ...link, mtuChosen: true }) : before;
  return done(changeMtu(chosen, ref, mtuBytes));
}

function setMac(before: Host, ref: LinkRef, link: Link, mac: Mac): Outcome {
  // It keeps the one that it was made with (drivers/net/ifb.c has no ndo_set_mac_address).
  if (link.kind === 'ifb') return refuse('EOPNOTSUPP');
  // What a link has already is not looked at (net/core/dev.c, dev_set_mac_address).
  const isSame = mac === (link.mac ?? ZERO_MAC) && trustsSameMac(before.kernel);
  if (!isUnicastMac(mac) && !isSame) return refuse('EADDRNOTAVAIL');
  const { netns } = ref;
  // The kernel keeps it, and nobody uses it; what was known of neighbours ends all the same (K-7.3).
  if (link.kind === 'loopback') return done(withLink(before, netns, { ...link, neighbours: [] }));
  if (link.kind === 'bridge') {
    const hadPorts = link.hadPorts || mac !== link.mac;
    const own = mac === link.mac ? link : withOwnMac({ ...link, mac }, mac);
    const bridge = { ...own, macChosen: true, hadPorts, neighbours: [] };
    return done(withLink(before, netns, withoutStrangers(getNetns(before, netns), bridge)));
  }
  if (
    link.kind === 'macvlan' &&
    link.lower &&
    mac !== link.mac &&
    isBusyMac(before, link.lower, mac)
  )
    return refuse('EADDRINUSE');
  const master = link.port?.master;
  const changed = withLink(before, netns, { ...link, mac, neighbours: [] });
  return done(followMaster(claimMac(changed, netns, master, mac), netns, master));
}

function withAllMulticast(link: Link, on: boolean): Link {
  const { allMulticast: _before, ...rest } = link;
  return on ? { ...rest, allMulticast: true } : rest;
}

function withGroup(link: Link, group: number): Link {
  const { group: _before, ...rest } = link;
  return group === 0 ? rest : { ...rest, group };
}

/** net/core/dev.c, dev_change_tx_queue_len; the attribute has 32 bits, the kernel keeps an unsigned int. */
function setTxQueueLength(host: Host, ref: LinkRef, link: Link, length: number): Outcome {
  const { txQueueLength: _before, ...rest } = link;
  const changed = length === TX_QUEUE_LENGTH ? rest : { ...rest, txQueueLength: length };
  return done(withLink(host, ref.netns, changed));
}

/** br_vlan_filter_toggle answers so on a kernel without, and rtnetlink of links that are no bridge. */
function setVlanFiltering(host: Host, ref: LinkRef, link: Link, filtering: boolean): Outcome {
  if (link.kind !== 'bridge' || !link.vlans) return refuse('EOPNOTSUPP');
  return done(withLink(host, ref.netns, { ...link, vlans: { ...link.vlans, filtering } }));
}

function setUp(host: Host, ref: LinkRef, link: Link): Outcome {
  return link.kind === 'macvlan' && collides(host, link)
    ? refuse('EADDRINUSE')
    : done(linkUp(host, ref));
}

function setAttribute(host: Host, ref: LinkRef, set: LinkAttribute): Outcome {
  const link = getLink(host, ref);
  if ('up' in set) return set.up ? setUp(host, ref, link) : done(linkDown(host, ref));
  if ('mtuBytes' in set) return setMtu(host, ref, link, set.mtuBytes);
  if ('mac' in set) return setMac(host, ref, link, set.mac);
  if ('promiscuous' in set)
    return done(withLink(host, ref.netns, { ...link, promiscuous: set.promiscuous }));
  if ('allMulticast' in set)
    return done(withLink(host, ref.netns, withAllMulticast(link, set.allMulticast)));
  if ('group' in set) return done(withLink(host, ref.netns, withGroup(link, set.group)));
  if ('txQueueLength' in set) return setTxQueueLength(host, ref, link, set.txQueueLength);
  if ('master' in set) return enslave(host, ref, set.master);
  if ('vlanFiltering' in set) return setVlanFiltering(host, ref, link, set.vlanFiltering);
  return done(withLink(host, ref.netns, { ...link, alias: set.alias }));
}

function describeAttribute(set: LinkAttribute): string {
  if ('up' in set) return set.up ? 'up' : 'down';
  if ('mtuBytes' in set) return `mtu ${set.mtuBytes}`;
  if ('mac' in set) return `address ${set.mac}`;
  if ('promiscuous' in set) return `promisc ${set.promiscuous ? 'on' : 'off'}`;
  if ('allMulticast' in set) return `allmulticast ${set.allMulticast ? 'on' : 'off'}`;
  if ('group' in set) return `group ${set.group}`;
  if ('txQueueLength' in set) return `txqueuelen ${set.txQueueLength}`;
  if ('master' in set) return set.master === null ? 'nomaster' : `master ${set.master}`;
  if ('vlanFiltering' in set) return `type bridge vlan_filtering ${set.vlanFiltering ? 1 : 0}`;
  return `alias "${set.alias}"`;
}

export const linkSet: OpKind<'link.set'> = {
  apply: (host, op) => {
    // The message is checked before the link is looked for.
    if ('alias' in op.set && op.set.alias.length > ALIAS_MAX_BYTES)
      return refuse('ERANGE', 'Attribute failed policy validation');
    return findLink(host, op) ? setAttribute(host, op, op.set) : refuse('ENODEV');
  },
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
