/** Which of its own addresses a netns sends from (K-5.5). */
import type { Address, Scope } from '../model/address.ts';
import { connectedPrefix } from '../model/connected.ts';
import type { Netns } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import { type Ip, familyOf, ipBits, isLoopback, parseIp } from '../model/ip.ts';
import type { Link } from '../model/link.ts';
import { parsePrefix, prefixContains, prefixLengthOf } from '../model/prefix.ts';
import type { Route } from '../model/route.ts';
import { isLinkLocal, isMulticast } from './frame.ts';

/** RT_SCOPE_* (include/uapi/linux/rtnetlink.h): a greater number reaches less far. */
const SCOPE: Readonly<Record<Scope, number>> = {
  global: 0,
  site: 200,
  link: 253,
  host: 254,
  nowhere: 255,
};

/** What stands for no address: 0.0.0.0 or ::. */
export const UNSPECIFIED = { 4: parseIp('0.0.0.0'), 6: parseIp('::') } as const;

function primariesOf(link: Link): Address[] {
  return link.addresses.filter((address) => familyOf(address.ip) === 4 && !address.secondary);
}

/**
 * net/ipv4/devinet.c, inet_select_addr: an address of the link whose subnet holds `towards`, else its
 * first primary, else one of another link. Undefined when the netns has none of that scope.
 */
export function selectIpv4(
  netns: Netns,
  device: Ifname,
  towards: Ip | null,
  scope: Scope,
): Ip | undefined {
  const link = netns.links[device];
  const own = link
    ? primariesOf(link).filter((address) => SCOPE[address.scope] <= SCOPE[scope])
    : [];
  const near =
    towards === null
      ? undefined
      : own.find((address) => prefixContains(connectedPrefix(address), towards));
  const elsewhere = (): Address | undefined =>
    Object.values(netns.links)
      .flatMap(primariesOf)
      .find((address) => address.scope !== 'link' && SCOPE[address.scope] <= SCOPE[scope]);
  return (near ?? own[0] ?? elsewhere())?.ip;
}

/** Is an IPv6 address past duplicate address detection? */
export function isUsable(address: Address): boolean {
  return !address.tentative || address.noDad;
}

/** net/ipv6/addrlabel.c, ip6addrlbl_init_table. */
const LABELS = [
  ['::1/128', 0],
  ['2001:10::/28', 7],
  ['2001::/32', 6],
  ['::ffff:0:0/96', 4],
  ['::/96', 3],
  ['2002::/16', 2],
  ['3ffe::/16', 12],
  ['fc00::/7', 5],
  ['fec0::/10', 11],
  ['::/0', 1],
] as const;

const LABELLED = LABELS.map(([text, label]) => ({ prefix: parsePrefix(text), label })).toSorted(
  (a, b) => prefixLengthOf(b.prefix) - prefixLengthOf(a.prefix),
);

function labelOf(ip: Ip): number {
  return LABELLED.find(({ prefix }) => prefixContains(prefix, ip))?.label ?? 1;
}

/** The scope of RFC 4007 for unicast: 2 link-local, 14 global. Loopback counts as link-local (RFC 6724 §3.4). */
function reachOf(ip: Ip): number {
  return isLinkLocal(ip) || isLoopback(ip) ? 2 : 14;
}

function commonBits(a: Ip, b: Ip): number {
  const differing = ipBits(a) ^ ipBits(b);
  return differing === 0n ? 128 : 128 - differing.toString(2).length;
}

/** The rules of net/ipv6/addrconf.c, ipv6_get_saddr_eval, in their order; of equals the greater number wins. */
function scoresOf(
  address: Address,
  link: Link,
  device: Ifname | null,
  destination: Ip,
): readonly number[] {
  const reach = reachOf(address.ip);
  return [
    Number(address.ip === destination),
    reach >= reachOf(destination) ? -reach : reach - 128,
    Number(link.ifname === device),
    Number(labelOf(address.ip) === labelOf(destination)),
    Math.min(commonBits(address.ip, destination), address.prefixLength),
  ];
}

function isBetter(scores: readonly number[], than: readonly number[]): boolean {
  const first = scores.findIndex((score, index) => score !== than[index]);
  return first >= 0 && (scores[first] ?? 0) > (than[first] ?? 0);
}

/** RFC 6724 §5 as the kernel does it (ipv6_dev_get_saddr), for a packet over `device` if that is known. Undefined when the netns has no address for it. */
export function selectIpv6(netns: Netns, device: Ifname | null, destination: Ip): Ip | undefined {
  const sameLink = isLinkLocal(destination) || isMulticast(destination);
  let best: { readonly ip: Ip; readonly scores: readonly number[] } | undefined;
  for (const link of Object.values(netns.links)) {
    if (sameLink && link.ifname !== device) continue;
    // They are kept latest first, so of equals the latest wins (ipv6_link_dev_addr).
    const usable = link.addresses.filter(
      (address) => familyOf(address.ip) === 6 && isUsable(address),
    );
    for (const address of usable) {
      const scores = scoresOf(address, link, device, destination);
      if (best === undefined || isBetter(scores, best.scores)) best = { ip: address.ip, scores };
    }
  }
  return best?.ip;
}

/** The source address of a packet to `destination` over `route`, when its sender chose none. */
export function selectSource(netns: Netns, route: Route, destination: Ip): Ip {
  const family = familyOf(destination);
  if (route.source !== null) return route.source;
  if (family === 4 && route.type === 'local') return destination;
  if (route.device === null) return UNSPECIFIED[family];
  const source =
    family === 4
      ? selectIpv4(netns, route.device, route.gateway, route.scope)
      : selectIpv6(netns, route.device, destination);
  return source ?? UNSPECIFIED[family];
}
