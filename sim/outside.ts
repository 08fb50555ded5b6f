/** Who is not on this host: an address that nobody has, and who asks from it by the way that leads there. */
import { makeAddress } from '../model/address.ts';
import { type Host, type NetnsName, findNetns, portsOf, withLink } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import { ADDRESS_BITS, type Family, type Ip, familyOf, parseIp } from '../model/ip.ts';
import type { Link, VethLink } from '../model/link.ts';
import { type Mac, parseMac } from '../model/mac.ts';
import type { Op } from '../model/op.ts';
import { applyOp } from '../model/ops.ts';
import { prefixOf } from '../model/prefix.ts';
import { makeRoute } from '../model/route.ts';
import { leadsOut } from './arrival.ts';
import { isLinkLocal } from './frame.ts';
import { routeOutput } from './route.ts';

/** Somebody who is not on this host, as an address that nobody has. */
export interface Outside {
  readonly netns: null;
  readonly ip: Ip;
}

/** Addresses for documentation, which are routed as every foreign one (RFC 5737, RFC 3849). */
export const OUTSIDE: Readonly<Record<Family, Outside>> = {
  4: { netns: null, ip: parseIp('192.0.2.1') },
  6: { netns: null, ip: parseIp('2001:db8::1') },
};

/** The netns that stands for the outside: no netns that `ip` makes has such a name. */
export const OUTSIDE_NETNS: NetnsName = 'the outside';

/** A host with somebody outside who can send. */
export interface Surrounded {
  readonly host: Host;
  /** The addresses of the netns at the link by which its packets come in: no way to others is known out there. */
  readonly ips: readonly Ip[];
}

const IFNAME = 'eth0' as Ifname;
/** Its MAC, and another where that one is taken by the link on this side. */
const MACS = [parseMac('02:00:5e:00:53:01'), parseMac('02:00:5e:00:53:02')] as const;

/** The link through which packets leave that are routed by `device`: itself, or the one port of a bridge that leads out. */
function wayOut(host: Host, netns: NetnsName, device: Ifname): Link | undefined {
  const here = findNetns(host, netns);
  const link = here?.links[device];
  if (!here || !link) return undefined;
  if (link.kind !== 'bridge') return leadsOut(host, link) ? link : undefined;
  const [port, ...more] = portsOf(here, device).filter((each) => leadsOut(host, each));
  return more.length === 0 ? port : undefined;
}

function own(ip: Ip): Op {
  const prefixLength = isLinkLocal(ip) ? 64 : ADDRESS_BITS[familyOf(ip)];
  const scope = isLinkLocal(ip) ? 'link' : 'global';
  return {
    op: 'address.add',
    netns: OUTSIDE_NETNS,
    ifname: IFNAME,
    address: makeAddress({ ip, prefixLength, scope }),
  };
}

/** How a netns is made that has these addresses, at the other end of a link of `here`, with a way to others behind that. */
function makingOps(
  here: NetnsName,
  { ifname, mtuBytes }: Link,
  mac: Mac,
  ips: readonly Ip[],
  others: readonly Ip[],
): Op[] {
  const [netns, up] = [OUTSIDE_NETNS, true];
  const peer = { netns: here, ifname, mac: MACS[0], mtuBytes, up };
  const conf = 'net/ipv6/conf/default';
  return [
    { op: 'netns.add', netns: here },
    { op: 'netns.add', netns },
    { op: 'sysctl.set', netns, key: `${conf}/disable_ipv6`, value: '0' },
    { op: 'sysctl.set', netns, key: `${conf}/accept_dad`, value: '0' },
    { op: 'sysctl.set', netns, key: `${conf}/addr_gen_mode`, value: '0' },
    {
      op: 'link.add',
      netns,
      link: { kind: 'veth', ifname: IFNAME, mac, mtuBytes, up, master: null, peer },
    },
    ...ips.map(own),
    ...others.map((ip): Op => {
      const destination = prefixOf(ip, ADDRESS_BITS[familyOf(ip)]);
      return { op: 'route.add', netns, route: makeRoute({ destination, device: IFNAME }) };
    }),
  ];
}

/** The same link as the end of a veth, whose other end is the outside's. */
function asVeth(link: Link): VethLink {
  const { kind: _kind, ...common } = link;
  const peer = { netns: OUTSIDE_NETNS, ifname: IFNAME };
  return { ...common, kind: 'veth', peer };
}

/**
 * The host with a netns in the place of the outside of one of its netns, at the other end of the link by which that reaches foreign
 * addresses: the next router there, which has the outside's address itself. Undefined where no route leads out, or none by a link that leads
 * to somebody else's. Packets that come in by the link come so from a network card: nothing that decides about them asks which kind it is.
 */
export function withOutside(host: Host, name: NetnsName, family: Family): Surrounded | undefined {
  const netns = findNetns(host, name);
  if (!netns || findNetns(host, OUTSIDE_NETNS)) return undefined;
  const { ip } = OUTSIDE[family];
  const answer = routeOutput(netns, null, ip, null);
  if (answer.kind !== 'forward' || answer.route.device === null) return undefined;
  const { device, gateway } = answer.route;
  const link = wayOut(host, name, device);
  const isUp = link?.up && (link.kind !== 'device' || link.carrier);
  if (!link || !isUp) return undefined;
  const at = netns.links[device];
  const ips = (at?.addresses ?? [])
    .filter((each) => familyOf(each.ip) === family && each.scope === 'global')
    .map((each) => each.ip);
  const known = at?.neighbours.find((each) => each.ip === (gateway ?? ip))?.mac;
  const mac = known ?? (link.mac === MACS[0] ? MACS[1] : MACS[0]);
  const isOfFamily = gateway !== null && familyOf(gateway) === family;
  let made: Host = { netns: {} };
  for (const op of makingOps(name, link, mac, isOfFamily ? [gateway, ip] : [ip], ips)) {
    const outcome = applyOp(made, op);
    if (!outcome.ok) return undefined;
    made = outcome.host;
  }
  const outside = findNetns(made, OUTSIDE_NETNS);
  if (!outside) return undefined;
  const joined = withLink(host, name, asVeth(link));
  return { host: { ...joined, netns: { ...joined.netns, [OUTSIDE_NETNS]: outside } }, ips };
}
