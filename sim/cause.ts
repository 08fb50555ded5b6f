/** What is to blame when a packet does not arrive, in one sentence, and what would mend it. */
import { hasCarrier } from '../model/carrier.ts';
import { connectedPrefix } from '../model/connected.ts';
import {
  type Host,
  HOST_NETNS,
  type NetnsName,
  type SysctlKey,
  findLink,
  findNetns,
} from '../model/host.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import type { Link, LinkRef } from '../model/link.ts';
import type { Mac } from '../model/mac.ts';
import { prefixContains } from '../model/prefix.ts';
import { quoteForShell } from '../model/shell.ts';
import { linkSysctl } from '../model/sysctl.ts';
import { type DropReason, explainReason } from './reason.ts';
import { formatRoute, routeInput } from './route.ts';
import { strayEntry } from './stray-entry.ts';
import type { LookedUp, Verdict } from './trace.ts';

type Dropped = Verdict & { readonly kind: 'dropped' };

/** The guilty object. */
export interface Cause {
  readonly netns: NetnsName;
  /** In the words of its kind: `link eth0`, `chain inet filter forward`, `sysctl net.ipv4.ip_forward`, `route to 10.0.0.1`. */
  readonly object: string;
  /** What is wrong with it. */
  readonly text: string;
  readonly reason: DropReason;
  /** Commands that would mend it, each to be run on the host; none where only people can know. */
  readonly mend: readonly string[];
}

/** A command as it has to be typed on the host to work in a netns. */
export function within(netns: NetnsName, command: string): string {
  if (netns === HOST_NETNS) return command;
  const path = netns.startsWith('/') ? netns : `/run/netns/${netns}`;
  return `nsenter --net=${quoteForShell(path)} ${command}`;
}

type Blame = Omit<Cause, 'netns' | 'reason'> & { readonly netns?: NetnsName };

/** A link that is down. */
export function linkDown({ netns, ifname }: LinkRef): Omit<Cause, 'reason'> {
  return {
    netns,
    object: `link ${ifname}`,
    text: 'is down',
    mend: [within(netns, `ip link set ${ifname} up`)],
  };
}

/** Why a link sends nothing: it is down, or what it gets its carrier from is. */
function ofSilence(host: Host, at: LinkRef, text: string): Blame {
  const link = findLink(host, at);
  const object = `link ${at.ifname}`;
  if (!link?.up) return linkDown(at);
  if (text.includes('token bucket'))
    return {
      object: `qdisc of link ${at.ifname}`,
      text: 'lets no packet of this size through its token bucket',
      mend: [],
    };
  if (link.kind === 'veth' && link.peer) {
    const peer = findLink(host, link.peer);
    if (peer && !peer.up) return linkDown(link.peer);
  }
  if (link.kind === 'macvlan' && link.lower) return ofSilence(host, link.lower, text);
  const what = link.kind === 'bridge' ? 'has no port that is up and has carrier' : 'has no carrier';
  return { object, text: what, mend: [] };
}

/** A setting that should have another value. */
export function sysctl(
  netns: NetnsName,
  key: SysctlKey,
  value: string,
  text: string,
): Omit<Cause, 'reason'> {
  const name = key.replaceAll('/', '.');
  return {
    netns,
    object: `sysctl ${name}`,
    text,
    mend: [within(netns, `sysctl -w ${name}=${value}`)],
  };
}

/** Which setting keeps a netns from passing packets on that came in by a link. */
function ofForwarding(host: Host, { netns, link }: Dropped, ip: Ip): Blame {
  const state = findNetns(host, netns);
  const text = `is 0, so that nothing is passed on to ${ip}`;
  if (familyOf(ip) === 6) return sysctl(netns, 'net/ipv6/conf/all/forwarding', '1', text);
  const isOn = state?.sysctls['net/ipv4/ip_forward'] === '1';
  return isOn && link !== null
    ? sysctl(netns, `net/ipv4/conf/${link}/forwarding`, '1', text)
    : sysctl(netns, 'net/ipv4/ip_forward', '1', text);
}

function ofReversePath(host: Host, { netns, link, text }: Dropped): Blame {
  const state = findNetns(host, netns);
  const all = state?.sysctls['net/ipv4/conf/all/rp_filter'] ?? '0';
  const own = state && link !== null ? linkSysctl(state, 4, link, 'rp_filter') : '0';
  const of = Number(own) >= Number(all) ? link : 'all';
  return sysctl(netns, `net/ipv4/conf/${of}/rp_filter`, '2', text.replace(/^rp_filter /, ''));
}

/** A link that is down with an address in reach of the destination, or else any with an address: with it its routes have gone. */
function findFallen(host: Host, netns: NetnsName, destination: Ip): LinkRef | undefined {
  const fallen = Object.values(findNetns(host, netns)?.links ?? {}).filter(
    ({ up, kind, addresses }) => !up && kind !== 'loopback' && addresses.length > 0,
  );
  const near = fallen.find(({ addresses }) =>
    addresses.some((address) => prefixContains(connectedPrefix(address), destination)),
  );
  const link = near ?? fallen[0];
  return link && { netns, ifname: link.ifname };
}

/** The route that there is and ends packets, or that there is none. */
function ofRouting(host: Host, { netns, text, lookedUp }: Dropped): Blame {
  const destination = lookedUp?.kind === 'route' ? lookedUp.destination : undefined;
  const fallen = destination === undefined ? undefined : findFallen(host, netns, destination);
  if (fallen && lookedUp?.kind === 'route' && !lookedUp.found) return linkDown(fallen);
  if (lookedUp?.kind === 'route' && lookedUp.found) {
    const words = formatRoute(lookedUp.found);
    return {
      object: `route ${words}`,
      text: `ends packets to ${destination}`,
      mend: [within(netns, `ip route del ${words}`)],
    };
  }
  const family = destination !== undefined && familyOf(destination) === 6 ? ' -6' : '';
  const isMissing = text.includes('no route to');
  return {
    object: isMissing ? `route to ${destination}` : `routes to ${destination}`,
    text: isMissing ? 'is missing' : text,
    mend: isMissing ? [within(netns, `ip${family} route add ${destination} via GATEWAY`)] : [],
  };
}

function ofChain({ netns, text, lookedUp }: Dropped): Blame {
  if (lookedUp?.kind !== 'chain') return { object: 'netfilter', text, mend: [] };
  const { family, table, chain, rule } = lookedUp;
  const place = `${family} ${table} ${chain}`;
  const decided = text.replace(/^\w+: /, '');
  return {
    object: `chain ${place}`,
    text:
      rule === null
        ? 'drops it: its policy is drop'
        : `drops it by its rule ${rule}: ${decided.replace(/^rule \d+ of chain [^,]*, /, '')}`,
    mend: [within(netns, `nft -a list chain ${place}`)],
  };
}

function ofMtu(host: Host, at: LinkRef, text: string, lookedUp: LookedUp | undefined): Blame {
  const mtuBytes = findLink(host, at)?.mtuBytes;
  const bytes = /^(\d+) bytes/.exec(text)?.[1] ?? '';
  const { netns, ifname } = at;
  const route = lookedUp?.kind === 'route' ? lookedUp.found : null;
  if (route?.mtuBytes !== undefined)
    return {
      netns,
      object: `route ${formatRoute(route)}`,
      text: `has an MTU of ${route.mtuBytes}, and the packet has ${bytes} bytes`,
      mend: [],
    };
  // Into a vxlan's packets less may fit than its MTU says.
  const room = /there is room for (\d+)$/.exec(text)?.[1];
  const limit = room === undefined ? '' : `, with room for ${room} in its packets`;
  return {
    netns,
    object: `link ${ifname}`,
    text: `has an MTU of ${mtuBytes}${limit}, and the packet has ${bytes} bytes`,
    mend: [within(netns, `ip link set ${ifname} mtu ${room ?? bytes}`)],
  };
}

function ofPort(host: Host, at: LinkRef, reason: DropReason, text: string): Blame {
  const { netns, ifname } = at;
  const object = `bridge port ${ifname}`;
  if (reason === 'BRIDGE_ISOLATED')
    return {
      netns,
      object,
      text: 'is isolated, as is the port that the frame came in by',
      mend: [within(netns, `bridge link set dev ${ifname} isolated off`)],
    };
  if (reason === 'BRIDGE_SAME_PORT')
    return {
      netns,
      object,
      text: 'is where the frame came in, and no hairpin',
      mend: [within(netns, `bridge link set dev ${ifname} hairpin on`)],
    };
  if (reason === 'BRIDGE_VLAN') return { netns, object, text, mend: [] };
  return { netns, ...ofSilence(host, at, text) };
}

/** The bridge that a link's frames come to: itself, or that of the port at its far end. */
function segmentOf(host: Host, at: LinkRef): LinkRef | undefined {
  const link = findLink(host, at);
  if (link?.kind === 'bridge') return at;
  const port = link?.kind === 'veth' && link.peer ? link.peer : undefined;
  const master = port && findLink(host, port)?.port?.master;
  return port && master !== undefined ? { netns: port.netns, ifname: master } : undefined;
}

/** The netns that a link's frames can get to at once: its own, that of its far end, that of its bridge. */
function surroundings(host: Host, at: LinkRef): (NetnsName | undefined)[] {
  const link = findLink(host, at);
  const peer = link?.kind === 'veth' ? link.peer : null;
  return [at.netns, peer?.netns, segmentOf(host, at)?.netns];
}

/** Whoever has the address that nobody answers for, wherever that is, but rather near than elsewhere: another node may have the same addresses. */
function findOwner(host: Host, asker: LinkRef, ip: Ip): LinkRef | undefined {
  const here = new Set(surroundings(host, asker));
  let elsewhere: LinkRef | undefined;
  for (const [netns, { links }] of Object.entries(host.netns)) {
    if (netns === asker.netns) continue;
    const link = Object.values(links).find(({ addresses }) => addresses.some((a) => a.ip === ip));
    if (!link) continue;
    const owner = { netns, ifname: link.ifname };
    const isNear = surroundings(host, owner).some((each) => each !== undefined && here.has(each));
    if (isNear) return owner;
    elsewhere ??= owner;
  }
  return elsewhere;
}

/** What keeps the owner of an address from being asked, or from answering; undefined where nothing is seen. */
function ofOwner(host: Host, asker: LinkRef, owner: LinkRef, ip: Ip): Blame | undefined {
  const link = findLink(host, owner);
  const netns = findNetns(host, owner.netns);
  if (!link || !netns) return undefined;
  if (!hasCarrier(host, owner)) {
    const found = ofSilence(host, owner, '');
    return { netns: owner.netns, ...found };
  }
  const segment = segmentOf(host, asker);
  const port = link.kind === 'veth' && link.peer ? link.peer : undefined;
  const master = port && findLink(host, port)?.port?.master;
  if (segment && port && port.netns === segment.netns && master !== segment.ifname)
    return {
      netns: port.netns,
      object: `link ${port.ifname}`,
      text: `is no port of bridge ${segment.ifname}, behind which ${ip} is asked for`,
      mend: [within(port.netns, `ip link set ${port.ifname} master ${segment.ifname}`)],
    };
  if (port && findLink(host, port)?.port?.isolated)
    return { netns: port.netns, ...ofPort(host, port, 'BRIDGE_ISOLATED', '') };
  const ignores = [owner.ifname, 'all' as const].find(
    (of) => Number(linkSysctl(netns, 4, of as typeof owner.ifname, 'arp_ignore')) > 0,
  );
  // Who does not route what comes from the asker does not answer it either (net/ipv4/arp.c, arp_process).
  const source = findLink(host, asker)?.addresses.find((a) => familyOf(a.ip) === familyOf(ip))?.ip;
  const routed = source && routeInput(netns, owner.ifname, source, ip);
  if (routed?.kind === 'drop') {
    const { reason, text } = routed;
    const place = { netns: owner.netns, link: owner.ifname };
    return { ...place, ...blame(host, { kind: 'dropped', reason, text, ...place }) };
  }
  if (familyOf(ip) === 4 && ignores !== undefined)
    return sysctl(
      owner.netns,
      `net/ipv4/conf/${ignores}/arp_ignore`,
      '0',
      `keeps ARP for ${ip} from being answered`,
    );
  return undefined;
}

function ofNeighbour(host: Host, asker: LinkRef, ip: Ip): Blame {
  const owner = findOwner(host, asker, ip);
  const found = owner && ofOwner(host, asker, owner, ip);
  return (
    found ?? {
      object: `neighbour ${ip}`,
      text: owner
        ? `does not answer on link ${asker.ifname}`
        : `is nobody's address: nobody answers on link ${asker.ifname}`,
      mend: [],
    }
  );
}

/** What somebody set wrong about the MAC address that a frame is for: where it is, or whose. */
function ofMac(host: Host, { netns: first, lookedUp }: Dropped): Blame | undefined {
  if (lookedUp?.kind !== 'fdb' && lookedUp?.kind !== 'own mac') return undefined;
  const { mac } = lookedUp;
  const stray = strayEntry(host, first, mac);
  if (stray) {
    const { netns, object, text, mend } = stray;
    return { netns, object, text, mend: [within(netns, mend)] };
  }
  return lookedUp.kind === 'own mac' ? ofWrongNeighbour(host, mac) : undefined;
}

/** A neighbour that somebody set to a MAC that the frame did not arrive with. */
function ofWrongNeighbour(host: Host, mac: Mac): Blame | undefined {
  for (const [netns, { links }] of Object.entries(host.netns)) {
    for (const { ifname, neighbours } of Object.values(links)) {
      const wrong = neighbours.find((each) => each.mac === mac);
      if (wrong)
        return {
          netns,
          object: `neighbour ${wrong.ip}`,
          text: `is set to ${mac} on link ${ifname}, and that is not where it is`,
          mend: [within(netns, `ip neigh del ${wrong.ip} dev ${ifname}`)],
        };
    }
  }
  return undefined;
}

function bridgeOf(host: Host, at: LinkRef): Link | undefined {
  const master = findLink(host, at)?.port?.master;
  return master === undefined ? undefined : findLink(host, { ...at, ifname: master });
}

function blame(host: Host, verdict: Dropped): Blame {
  const { reason, netns, link, text, lookedUp } = verdict;
  const at = link === null ? undefined : { netns, ifname: link };
  const about = verdict.about ?? at;
  switch (reason) {
    case 'QDISC_DROP':
      if (at) return ofSilence(host, at, text);
      break;
    case 'IP_OUTNOROUTES':
    case 'IP_INNOROUTES':
      return ofRouting(host, verdict);
    case 'SOCKET_REFUSED':
      if (lookedUp?.kind === 'route') return ofRouting(host, verdict);
      break;
    case 'IP_INADDRERRORS':
      if (lookedUp?.kind === 'route' && text.includes('orward'))
        return ofForwarding(host, verdict, lookedUp.destination);
      break;
    case 'IP_RPFILTER':
      return ofReversePath(host, verdict);
    case 'IP_LOCALNET':
      return sysctl(netns, `net/ipv4/conf/${link}/route_localnet`, '1', `is 0, and ${text}`);
    case 'IPV6DISABLED':
      return sysctl(netns, `net/ipv6/conf/${link}/disable_ipv6`, '0', `is 1: ${text}`);
    case 'NETFILTER_DROP':
      return ofChain(verdict);
    case 'PKT_TOO_BIG':
    case 'FRAME_TOO_BIG':
      if (about) return ofMtu(host, about, text, lookedUp);
      break;
    case 'BRIDGE_ISOLATED':
    case 'BRIDGE_SAME_PORT':
    case 'BRIDGE_VLAN':
    case 'BRIDGE_PORT_DOWN':
      if (about) return ofMac(host, verdict) ?? ofPort(host, about, reason, text);
      break;
    case 'BRIDGE_INGRESS_STP_STATE':
      if (at) {
        const bridge = bridgeOf(host, at);
        return bridge && !bridge.up
          ? linkDown({ netns, ifname: bridge.ifname })
          : ofSilence(host, at, text);
      }
      break;
    case 'NEIGH_FAILED':
      if (at && lookedUp?.kind === 'neighbour') return ofNeighbour(host, at, lookedUp.ip);
      break;
    case 'OTHERHOST':
      return ofMac(host, verdict) ?? { object: `link ${link}`, text, mend: [] };
    case 'TC_INGRESS':
      if (about && findLink(host, about)) return linkDown(about);
      break;
    case 'VXLAN_VNI_NOT_FOUND':
      if (verdict.about) return linkDown(verdict.about);
      return { object: `link ${link}`, text: `takes its packets in, and ${text}`, mend: [] };
    case 'VXLAN_ENTRY_EXISTS':
    case 'LOCAL_MAC':
      if (about) return { object: `link ${about.ifname}`, text: `takes it not: ${text}`, mend: [] };
      break;
    case 'VXLAN_NO_REMOTE':
      return {
        object: `link ${link}`,
        text: `was not told where to send: ${text}`,
        mend: [within(netns, `bridge fdb append 00:00:00:00:00:00 dev ${link} dst REMOTE`)],
      };
    case 'NO_TX_TARGET': {
      const stray = ofMac(host, verdict);
      if (stray) return stray;
      break;
    }
    // The packet itself, or the network as a whole.
    case 'FRAG_REASM_TIMEOUT':
    case 'IFB_OWN':
    case 'INVALID_PROTO':
    case 'IP_INHDR':
    case 'IP_INVALID_DEST':
    case 'IP_INVALID_SOURCE':
    case 'IP_LOCAL_SOURCE':
    case 'LOOP':
    case 'MAC_INVALID_SOURCE':
    case 'NO_SOCKET':
    case 'STEP_LIMIT':
    case 'UNICAST_IN_L2_MULTICAST':
      break;
  }
  const object = link === null ? `netns ${netns}` : `link ${link}`;
  return { object, text: `${explainReason(reason)} (${text})`, mend: [] };
}

/** What is to blame for a drop: where a neighbour did not answer, whatever kept it from answering. */
export function causeOf(host: Host, verdict: Dropped): Cause {
  if (verdict.because) return causeOf(host, verdict.because);
  return { netns: verdict.netns, reason: verdict.reason, ...blame(host, verdict) };
}

/** A cause as a sentence: `netns a: link eth0 is down`. */
export function formatCause({ netns, object, text }: Omit<Cause, 'reason' | 'mend'>): string {
  return `netns ${netns}: ${object} ${text}`;
}
