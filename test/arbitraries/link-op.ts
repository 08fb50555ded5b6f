/** Operations that make, change and remove links. */
import { type Host, type NetnsName, findLink, findNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Link, LinkRef } from '../../model/link.ts';
import { type Mac, ZERO_MAC, parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import type { LinkAttribute } from '../../model/ops/link-set.ts';
import { lowerOf } from '../../model/upper.ts';
import type { Draw } from './draw.ts';
import {
  ALTNAMES,
  BRIDGES,
  freeName,
  linksOf,
  MACS,
  someBridge,
  someHolder,
  someLink,
  VETHS,
} from './names.ts';
import { IFB_MTUS, findRedirecting, ifbAdd } from './traffic-control-op.ts';

const MTUS = [1500, 1400, 9000, 1280];
const LOOPBACK_MTUS = [65536, 1500, 1279];
/** Below 2^31; those above are negative to the kernel, and of no group that it finds. */
const GROUPS = [7, 0x4000_0001];

const MTU_MISSES = [67, 65536, 1279, 68, 65535];
const MAC_MISSES = ['01:00:5e:00:00:01', '00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff'].map(parseMac);

/** A bridge, an ifb, or a veth within a netns or across two. */
export function linkAdd(
  netns: NetnsName,
  universe: readonly NetnsName[],
  host: Host,
  draw: Draw,
): Op {
  const end = {
    mac: draw.oneIn(20) ? draw.of(MAC_MISSES) : draw.of(MACS),
    mtuBytes: draw.oneIn(10) ? draw.of(MTU_MISSES) : draw.of(MTUS),
    up: !draw.oneIn(3),
    ...(draw.oneIn(3) ? { group: draw.of(GROUPS) } : {}),
  };
  const bridges = linksOf(host, netns)
    .filter((l) => l.kind === 'bridge')
    .map((l) => l.ifname);
  if (draw.has('bridges') && draw.oneIn(bridges.length === 0 ? 2 : 6)) {
    const ifname = freeName(host, netns, draw, BRIDGES);
    // Where bridges know no VLANs it is always refused, and then the kernel takes long to take the bridge back.
    const filters = draw.oneIn(host.kernel?.bridgeVlans ? 6 : 40);
    const filtering = filters ? { vlanFiltering: true as const } : {};
    return { op: 'link.add', netns, link: { kind: 'bridge', ifname, ...end, ...filtering } };
  }
  if (draw.oneIn(8) && draw.has('traffic control')) return ifbAdd(netns, host, draw);
  const there = draw.of(universe);
  const ifname = freeName(host, netns, draw, VETHS);
  const others = VETHS.filter((name) => name !== ifname || there !== netns || draw.oneIn(6));
  const masters = draw.oneIn(6)
    ? [...BRIDGES, ...VETHS.slice(0, 1)]
    : [null, ...bridges, ...bridges];
  const master = draw.of(masters);
  const peer = {
    netns: there,
    ifname: draw.oneIn(12) ? draw.of(BRIDGES) : freeName(host, there, draw, others),
    mac: draw.of(MACS),
    mtuBytes: draw.oneIn(12) ? draw.of(MTU_MISSES) : draw.of(MTUS),
    // A new port that is up without carrier enables its bridge for a moment, or not: that depends on which carrier change
    // the kernel's work queue comes to first (K-1.9).
    up: !draw.oneIn(3) || (end.up && master !== null),
  };
  return {
    op: 'link.add',
    netns,
    link: { kind: 'veth', ifname, ...end, master, peer },
  };
}

/** Too small for IPv4: links that can have such an MTU lose it, which the model does not know. */
const TINY_MTU = 67;

function mtusOf(host: Host, ref: LinkRef, draw: Draw): readonly number[] {
  const own = ref.ifname === 'lo' ? LOOPBACK_MTUS : IFB_MTUS;
  if (ref.ifname === 'lo' || findLink(host, ref)?.kind === 'ifb')
    return draw.oddIn(20) ? [TINY_MTU] : own;
  return draw.oneIn(4) ? MTU_MISSES : MTUS;
}

/** Where plans are to lead, macvlans keep the MACs that they were made with, which no other link has. */
function macsOf(host: Host, ref: LinkRef, draw: Draw): readonly Mac[] {
  const link = findLink(host, ref);
  return link?.kind === 'macvlan' && link.mac !== null && !draw.oddIn(1) ? [link.mac] : MACS;
}

/** One attribute of a link. */
export function linkSet(netns: NetnsName, host: Host, draw: Draw): Op {
  const ifname = someLink(host, netns, draw);
  // A port that is refused by something that is no bridge has left its own bridge by then: half an operation, which
  // the model does not know (K-1.13), and seldom asked for.
  const joined = (findLink(host, { netns, ifname })?.port ?? null) !== null && !draw.oddIn(20);
  const possible = (master: Ifname): Ifname | null =>
    joined && (findLink(host, { netns, ifname: master })?.kind ?? 'bridge') !== 'bridge'
      ? null
      : master;
  const sets: readonly (() => LinkAttribute)[] = [
    () => ({ up: true }),
    () => ({ up: true }),
    () => ({ up: false }),
    () => ({ mtuBytes: draw.of(mtusOf(host, { netns, ifname }, draw)) }),
    // A loopback would keep a MAC that nobody sees.
    () => ({
      mac:
        ifname !== 'lo' && draw.oneIn(6)
          ? draw.of(MAC_MISSES)
          : draw.of(ifname === 'lo' ? [ZERO_MAC] : macsOf(host, { netns, ifname }, draw)),
    }),
    () => ({ promiscuous: draw.oneIn(2) }),
    () =>
      draw.oneIn(2) ? { allMulticast: draw.oneIn(2) } : { txQueueLength: draw.of([1000, 500, 0]) },
    () => ({ alias: draw.of(['', 'cube-cni', 'some text', 'a'.repeat(255), 'a'.repeat(256)]) }),
    () => ({
      master: draw.oneIn(4) ? null : possible(draw.of([...BRIDGES, ifname, ...VETHS.slice(0, 1)])),
    }),
    () => ({ vlanFiltering: draw.oneIn(2) }),
    () => ({ group: draw.of([0, ...GROUPS]) }),
    () => ({ master: possible(someBridge(host, netns, draw)) }),
    () => ({ master: possible(someBridge(host, netns, draw)) }),
  ];
  return { op: 'link.set', netns, ifname, set: draw.of(sets)() };
}

/** A link goes; now and then it is one that cannot. */
export function linkDel(netns: NetnsName, host: Host, draw: Draw): Op {
  const ifname = draw.oneIn(8) ? ('lo' as Ifname) : someLink(host, netns, draw);
  // No plan leads back to a redirection to nowhere.
  const redirecting = findRedirecting(host, netns, ifname);
  return redirecting !== undefined && !draw.oddIn(1)
    ? { op: 'filter.del', netns, ifname: redirecting }
    : { op: 'link.del', netns, ifname };
}

/** A group goes; now and then one that has no link, but most often one is joined then. */
export function groupDel(netns: NetnsName, host: Host, draw: Draw): Op {
  const links = linksOf(host, netns);
  const all = Object.values(findNetns(host, netns)?.links ?? {});
  const held = GROUPS.filter((each) => all.some((link) => link.group === each));
  if (held.length === 0 && links.length > 0 && !draw.oneIn(3)) {
    const ifname = draw.of(links.map((link) => link.ifname));
    return { op: 'link.set', netns, ifname, set: { group: draw.of(GROUPS) } };
  }
  const group = draw.oddIn(20) ? 0 : draw.of(held.length === 0 || draw.oneIn(6) ? GROUPS : held);
  const members = links.filter((link) => link.group === group);
  // No plan leads back to a redirection to nowhere.
  const [redirecting] = members.flatMap(({ ifname }) => findRedirecting(host, netns, ifname) ?? []);
  return redirecting !== undefined && !draw.oddIn(1)
    ? { op: 'filter.del', netns, ifname: redirecting }
    : { op: 'group.del', netns, group, ifnames: members.map(({ ifname }) => ifname) };
}

function isPort(link: Link): boolean {
  return link.port !== null;
}

/** One flag of a bridge port, or of a link that is none; without a port one joins a bridge. */
export function portSet(netns: NetnsName, host: Host, draw: Draw): Op {
  const links = linksOf(host, netns);
  if (!links.some(isPort) && !draw.oneIn(4)) {
    const veths = links.filter((link) => link.kind === 'veth').map((link) => link.ifname);
    const ifname = draw.of(veths.length > 0 ? veths : VETHS);
    return { op: 'link.set', netns, ifname, set: { master: someBridge(host, netns, draw) } };
  }
  return {
    op: 'port.set',
    netns,
    ifname: someHolder(host, netns, draw, isPort),
    flag: draw.of(['hairpin', 'isolated', 'learning', 'flood']),
    on: draw.oneIn(2),
  };
}

/** A link has another name: a free one, its own, or one that is taken. */
export function linkRename(netns: NetnsName, host: Host, draw: Draw): Op {
  // A loopback by another name is one that nothing looks for.
  const ifname = someHolder(host, netns, draw, () => true);
  const names = [...VETHS, ...BRIDGES, ...ALTNAMES] as Ifname[];
  const name = draw.oneIn(8) ? ifname : freeName(host, netns, draw, names);
  // And no plan leads from two macvlans that are up to the same with their MACs exchanged.
  const isMacvlan = findLink(host, { netns, ifname })?.kind === 'macvlan';
  return ifname === 'lo' || (isMacvlan && !draw.oddIn(1))
    ? { op: 'link.set', netns, ifname, set: { up: true } }
    : { op: 'link.rename', netns, ifname, name };
}

function isMovable(link: Link): boolean {
  return link.kind !== 'bridge';
}

/** A link goes to another netns, or to its own; now and then it is one that cannot. */
export function linkMove(
  netns: NetnsName,
  universe: readonly NetnsName[],
  host: Host,
  draw: Draw,
): Op {
  const ifname = someHolder(host, netns, draw, isMovable);
  const redirecting = findRedirecting(host, netns, ifname);
  if (redirecting !== undefined && !draw.oddIn(1))
    return { op: 'filter.del', netns, ifname: redirecting };
  // No plan leads to a link that is over one of another netns.
  const link = findLink(host, { netns, ifname });
  const isTied = link && (lowerOf(link) ?? link.uppers) !== undefined;
  return isTied && !draw.oddIn(1)
    ? { op: 'link.set', netns, ifname, set: { up: draw.oneIn(2) } }
    : { op: 'link.move', netns, ifname, toNetns: draw.of(universe) };
}

const ALTNAME_MISSES = ['br0', 'v0', 'a'.repeat(127), 'a'.repeat(128)];

/** One more name of a link. */
export function altnameAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const altname = draw.of(draw.oneIn(4) ? ALTNAME_MISSES : ALTNAMES);
  return { op: 'altname.add', netns, ifname: someLink(host, netns, draw), altname };
}

/** One name less of a link; now and then one that it has not, or that is its own. */
export function altnameDel(netns: NetnsName, host: Host, draw: Draw): Op {
  const ifname = someHolder(host, netns, draw, ({ altnames }) => altnames !== undefined);
  const own = findLink(host, { netns, ifname })?.altnames ?? [];
  const altname = own.length > 0 && !draw.oneIn(5) ? draw.of(own) : draw.of([ifname, ...ALTNAMES]);
  return { op: 'altname.del', netns, ifname, altname };
}
