import { findByAnyName } from '../altname.ts';
import {
  type Host,
  type Netns,
  type NetnsName,
  findLink,
  findNetns,
  getNetns,
  withNetns,
} from '../host.ts';
import type { Ifname } from '../ifname.ts';
import {
  IFB_TX_QUEUE_LENGTH,
  type Link,
  type MacvlanLink,
  MTU_MAX_BYTES,
  MTU_MIN_BYTES,
  holdsIpv6,
} from '../link.ts';
import { type Mac, isUnicastMac } from '../mac.ts';
import { type MacvlanMode, collides } from '../macvlan.ts';
import { linkUp } from '../netdev.ts';
import { type OpKind, type Outcome, done, refuse } from '../op.ts';
import { inheritSysctls, linkSysctl } from '../sysctl.ts';
import { tellLower } from '../upper.ts';
import { FRESH_BRIDGE_VLANS } from '../vlan.ts';
import { type VxlanTunnel, fittingMtu, tunnelFamily, tunnelsIn } from '../vxlan.ts';
import { followJoined, freshPort } from './enslave.ts';

/** What one end of a link is made with. Nothing is left for the kernel to choose. */
export interface NewEnd {
  readonly ifname: Ifname;
  readonly mac: Mac;
  readonly mtuBytes: number;
  readonly up: boolean;
  /** Absent: in none. */
  readonly group?: number;
}

export type NewLink =
  | ({
      readonly kind: 'bridge';
      /** Absent: as bridges are made, which do not filter. */
      readonly vlanFiltering?: true;
    } & NewEnd)
  | ({ readonly kind: 'ifb' } & NewEnd)
  | ({ readonly kind: 'vxlan' } & VxlanTunnel & NewEnd)
  | ({
      readonly kind: 'macvlan';
      readonly mode: MacvlanMode;
      /** The link that it is to be on; of a macvlan, that which this one is on. */
      readonly lower: Ifname;
    } & NewEnd)
  | ({
      readonly kind: 'veth';
      readonly master: Ifname | null;
      readonly peer: NewEnd & { readonly netns: NetnsName };
    } & NewEnd);

/** Makes a link with all its attributes in one message: all of it or nothing. */
export interface LinkAdd {
  readonly link: NewLink;
}

/** Why an MTU is refused for these kinds of links, with the kernel's text. */
export function mtuFault(mtuBytes: number): Outcome | undefined {
  if (mtuBytes < MTU_MIN_BYTES) return refuse('EINVAL', 'mtu less than device minimum');
  if (mtuBytes > MTU_MAX_BYTES) return refuse('EINVAL', 'mtu greater than device maximum');
  return undefined;
}

function plainLink(end: NewEnd): Omit<Link & { kind: 'loopback' }, 'kind'> {
  const { ifname, mac, mtuBytes, group } = end;
  return {
    ifname,
    mac,
    mtuBytes,
    up: false,
    promiscuous: false,
    ...(group === undefined ? {} : { group }),
    alias: '',
    port: null,
    addresses: [],
    neighbours: [],
  };
}

function placeIn(netns: Netns, link: Link): Netns {
  const links = { ...netns.links, [link.ifname]: link };
  const sysctls = inheritSysctls(netns, link, holdsIpv6(link) ? [4, 6] : [4]);
  return { ...netns, links, sysctls };
}

function place(host: Host, name: NetnsName, link: Link): Host {
  return withNetns(host, name, placeIn(getNetns(host, name), link));
}

function addVeth(host: Host, name: NetnsName, link: NewLink & { kind: 'veth' }): Outcome {
  const { peer } = link;
  if (peer.netns === name && peer.ifname === link.ifname) return refuse('EEXIST');
  if (findByAnyName(host, peer)) return refuse('EEXIST');
  const bridge = link.master === null ? null : findLink(host, { netns: name, ifname: link.master });
  if (bridge && bridge.kind !== 'bridge') return refuse('EOPNOTSUPP');
  const here = { netns: name, ifname: link.ifname };
  const there = { netns: peer.netns, ifname: peer.ifname };
  const far = placeIn(getNetns(host, peer.netns), { ...plainLink(peer), kind: 'veth', peer: here });
  const near = placeIn(peer.netns === name ? far : getNetns(host, name), {
    ...plainLink(link),
    kind: 'veth',
    peer: there,
    port: bridge ? freshPort(bridge.ifname, bridge) : null,
  });
  let after: Host = { ...host, netns: { ...host.netns, [peer.netns]: far, [name]: near } };
  if (peer.up) after = linkUp(after, there);
  if (link.up) after = linkUp(after, here);
  return done(bridge ? followJoined(after, here, bridge) : after);
}

function addIfb(host: Host, netns: NetnsName, link: NewEnd): Host {
  const after = place(host, netns, {
    ...plainLink(link),
    kind: 'ifb',
    txQueueLength: IFB_TX_QUEUE_LENGTH,
  });
  return link.up ? linkUp(after, { netns, ifname: link.ifname }) : after;
}

/** What a vxlan cannot be, before its name is looked at (vxlan_validate). */
function vxlanFault({ mtuBytes }: NewEnd): Outcome | undefined {
  return mtuFault(mtuBytes) && refuse('EINVAL', 'MTU must be between 68 and 65535');
}

function addVxlan(host: Host, netns: NetnsName, link: NewLink & { kind: 'vxlan' }): Outcome {
  const { vni, udpPort, local, lower: lowerName, learning } = link;
  const lower = lowerName === null ? undefined : findLink(host, { netns, ifname: lowerName });
  const family = tunnelFamily(link);
  if (
    lower &&
    family === 6 &&
    holdsIpv6(lower) &&
    linkSysctl(getNetns(host, netns), 6, lower.ifname, 'disable_ipv6') !== '0'
  )
    return refuse('EPERM', 'IPv6 support disabled by administrator');
  const isTaken = tunnelsIn(host, netns).some(
    ({ link: other }) =>
      other.vni === vni && other.udpPort === udpPort && tunnelFamily(other) === family,
  );
  if (isTaken) return refuse('EEXIST', 'A VXLAN device with the specified VNI already exists');
  const tunnel = { vni, udpPort, local, lower: lowerName, learning };
  const placed = place(host, netns, {
    ...plainLink(link),
    ...tunnel,
    kind: 'vxlan',
    underlay: netns,
    mtuBytes: fittingMtu(tunnel, lower, link.mtuBytes),
  });
  const ref = { netns, ifname: link.ifname };
  const after = tellLower(placed, ref);
  return done(link.up ? linkUp(after, ref) : after);
}

/** K-1.18; drivers/net/macvlan.c, macvlan_common_newlink. */
function addMacvlan(host: Host, netns: NetnsName, link: NewLink & { kind: 'macvlan' }): Outcome {
  const below = findLink(host, { netns, ifname: link.lower });
  const lowerRef = below?.kind === 'macvlan' ? below.lower : { netns, ifname: link.lower };
  const lower = lowerRef ? findLink(host, lowerRef) : undefined;
  if (lower && link.mtuBytes > lower.mtuBytes) return refuse('EINVAL');
  if (lower?.kind === 'loopback') return refuse('EINVAL');
  // One taker only can there be of what comes in by a link (net/core/dev.c, netdev_rx_handler_register).
  if (lower && lower.port !== null) return refuse('EBUSY');
  const macvlan: MacvlanLink = {
    ...plainLink(link),
    kind: 'macvlan',
    mode: link.mode,
    lower: lowerRef,
  };
  // Nothing is left of one that cannot go up.
  if (link.up && collides(host, macvlan)) return refuse('EADDRINUSE');
  const ref = { netns, ifname: link.ifname };
  const after = tellLower(place(host, netns, macvlan), ref);
  return done(link.up ? linkUp(after, ref) : after);
}

function describeTunnel({ vni, udpPort, local, lower, learning }: VxlanTunnel): string {
  return [
    `id ${vni} dstport ${udpPort}`,
    ...(local === null ? [] : [`local ${local}`]),
    ...(lower === null ? [] : [`dev ${lower}`]),
    ...(learning ? [] : ['nolearning']),
  ].join(' ');
}

/** What a link of one end is made with beside what all are. */
function describeKind(link: Exclude<NewLink, { kind: 'veth' }>): string {
  if (link.kind === 'bridge' && link.vlanFiltering) return 'bridge vlan_filtering 1';
  if (link.kind === 'macvlan') return `macvlan mode ${link.mode}`;
  return link.kind === 'vxlan' ? `vxlan ${describeTunnel(link)}` : link.kind;
}

function describeEnd(end: NewEnd): string {
  const group = end.group === undefined ? '' : ` group ${end.group}`;
  return `${end.ifname} address ${end.mac} mtu ${end.mtuBytes}${group}`;
}

export const linkAdd: OpKind<'link.add'> = {
  apply: (host, { netns, link }) => {
    if (!findNetns(host, netns)) return refuse('ENOENT');
    // Names are resolved before the kernel sees the message.
    if (link.kind === 'veth' && link.master !== null) {
      if (!findLink(host, { netns, ifname: link.master })) return refuse('ENODEV');
    }
    if ('lower' in link && link.lower !== null) {
      if (!findLink(host, { netns, ifname: link.lower })) return refuse('ENODEV');
    }
    if (link.kind === 'veth' && !findNetns(host, link.peer.netns)) return refuse('ENOENT');
    const ends: readonly NewEnd[] = link.kind === 'veth' ? [link, link.peer] : [link];
    // br_validate and veth_validate come first, without a text; both ends before either name.
    for (const end of ends) {
      if (!isUnicastMac(end.mac)) return refuse('EADDRNOTAVAIL');
      if (link.kind === 'veth' && mtuFault(end.mtuBytes)) return refuse('EINVAL');
    }
    const unfit = link.kind === 'vxlan' ? vxlanFault(link) : undefined;
    if (unfit) return unfit;
    if (findByAnyName(host, { netns, ifname: link.ifname })) return refuse('EEXIST');
    if (link.kind === 'vxlan') return addVxlan(host, netns, link);
    if (link.kind === 'ifb') return done(addIfb(host, netns, link));
    const fault = mtuFault(link.mtuBytes);
    if (fault) return fault;
    if (link.kind === 'veth') return addVeth(host, netns, link);
    if (link.kind === 'macvlan') return addMacvlan(host, netns, link);
    const hasVlans = host.kernel?.bridgeVlans === true;
    // Asked for last, and then all of the bridge is taken back (net/bridge/br_netlink.c, br_dev_newlink).
    if (link.vlanFiltering && !hasVlans) return refuse('EOPNOTSUPP');
    const bridge: Link = {
      ...plainLink(link),
      kind: 'bridge',
      // Its own MAC settles its carrier as a first port does (br_stp_if.c, br_stp_change_bridge_id).
      hadPorts: true,
      macChosen: true,
      mtuChosen: false,
      ...(hasVlans
        ? { vlans: { ...FRESH_BRIDGE_VLANS, filtering: link.vlanFiltering === true } }
        : {}),
    };
    const after = place(host, netns, bridge);
    return done(link.up ? linkUp(after, { netns, ifname: link.ifname }) : after);
  },
  describe: ({ netns, link }) => {
    const on = link.kind === 'macvlan' ? ` link ${link.lower}` : '';
    const head = `ip link add ${describeEnd(link)}${on}`;
    if (link.kind !== 'veth')
      return [
        `${head} type ${describeKind(link)}`,
        ...(link.up ? [`ip link set ${link.ifname} up`] : []),
      ];
    const { peer } = link;
    // The lines are typed in the netns of this end.
    const path = peer.netns.startsWith('/') ? peer.netns : `/run/netns/${peer.netns}`;
    const enter = peer.netns === netns ? '' : `nsenter --net=${path} `;
    const where = peer.netns === netns ? '' : ` netns ${peer.netns}`;
    const master = link.master === null ? '' : ` master ${link.master}`;
    return [
      `ip link add ${describeEnd(link)}${master} type veth peer name ${describeEnd(peer)}${where}`,
      ...(link.up ? [`ip link set ${link.ifname} up`] : []),
      ...(peer.up ? [`${enter}ip link set ${peer.ifname} up`] : []),
    ];
  },
  sign: () => '+',
  reads: ({ netns, link }) => {
    const names = link.kind === 'veth' ? [netns, link.peer.netns] : [netns];
    const keys = names.flatMap((name) => [`netns ${name}`, `conf ${name}/default`]);
    const below = 'lower' in link ? link.lower : link.kind === 'veth' ? link.master : null;
    // A link below is as large as the one above may be, and no port where a macvlan is to be.
    return below === null
      ? keys
      : [
          ...keys,
          `link ${netns}/${below}`,
          ...('lower' in link ? [`attribute ${netns}/${below}`] : []),
        ];
  },
  writes: ({ netns, link }) => [
    `link ${netns}/${link.ifname}`,
    ...(link.kind === 'veth' ? [`link ${link.peer.netns}/${link.peer.ifname}`] : []),
  ],
  removes: () => [],
};
