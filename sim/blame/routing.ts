/** Routes and settings that let no packet on. */
import { connectedPrefix } from '../../model/connected.ts';
import { type Host, type Netns, type NetnsName, findNetns } from '../../model/host.ts';
import { type Ip, familyOf, isLoopback } from '../../model/ip.ts';
import type { LinkRef } from '../../model/link.ts';
import {
  type PolicyRule,
  effectiveRules,
  formatPolicyRule,
  makePolicyRule,
} from '../../model/policy-rule.ts';
import { prefixContains } from '../../model/prefix.ts';
import { type Flow, fitOf, lookupIn } from '../../model/route-lookup.ts';
import { PROTOCOL_KERNEL, type Route, TABLE_MAIN } from '../../model/route.ts';
import { linkSysctl } from '../../model/sysctl.ts';
import { linkDown, sysctl, within } from '../cause.ts';
import { formatRoute } from '../route.ts';
import type { Blame, Dropped, Inquiry } from './blame.ts';
import { findGateway, hasDefaultRoute } from './gateway.ts';
import { ofPacket } from './packet.ts';

/** Which setting keeps a netns from passing packets on that came in by a link. */
export function ofForwarding(host: Host, { netns, link }: Dropped, ip: Ip): Blame {
  const state = findNetns(host, netns);
  const text = `is 0, so that nothing is passed on to ${ip}`;
  if (familyOf(ip) === 6) return sysctl(netns, 'net/ipv6/conf/all/forwarding', '1', text);
  const isOn = state?.sysctls['net/ipv4/ip_forward'] === '1';
  return isOn && link !== null
    ? sysctl(netns, `net/ipv4/conf/${link}/forwarding`, '1', text)
    : sysctl(netns, 'net/ipv4/ip_forward', '1', text);
}

/** The reverse path filter that wants a packet from elsewhere. */
export function ofReversePath(host: Host, { netns, link, text }: Dropped): Blame {
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

/** The loopback of a netns that asks itself, where that is down: without it 127.0.0.1 and ::1 are routed like any address. */
export function ofLoopback({ world, request }: Inquiry): Blame | undefined {
  const { netns, destination } = request;
  const links = Object.values(findNetns(world.host, netns)?.links ?? {});
  const loopback = links.find(({ kind, up }) => kind === 'loopback' && !up);
  const isOwn =
    isLoopback(destination) ||
    links.some(({ up, addresses }) => up && addresses.some(({ ip }) => ip === destination));
  return loopback && isOwn ? linkDown({ netns, ifname: loopback.ifname }) : undefined;
}

/** What ends a lookup without a way on: a route that says so, or a policy rule. */
type Ending = { readonly route: Route } | { readonly rule: PolicyRule };

function endingOf(netns: Netns, destination: Ip, flow: Flow): Ending | undefined {
  for (const rule of effectiveRules(netns, familyOf(destination))) {
    if (fitOf(netns, rule, destination, flow) !== true) continue;
    if (rule.table === null) return { rule };
    const route = lookupIn(netns, rule.table, destination, () => true);
    if (route && route.type !== 'throw') return { route };
  }
  return undefined;
}

/** The types of routes by which packets end. */
const ENDS: ReadonlySet<Route['type']> = new Set(['blackhole', 'prohibit', 'unreachable']);

function familyOption(ip: Ip): string {
  return familyOf(ip) === 6 ? ' -6' : '';
}

function ofEnding(netns: NetnsName, destination: Ip, ending: Ending): Blame | undefined {
  const text = `lets no packet to ${destination} on`;
  const option = familyOption(destination);
  if ('rule' in ending) {
    const { rule } = ending;
    // Nobody says who made it, as `ip rule` does not.
    const words = formatPolicyRule(
      rule.protocol === 0 ? makePolicyRule({ ...rule, protocol: PROTOCOL_KERNEL }) : rule,
    );
    return {
      object: `rule ${words}`,
      text,
      mend: [within(netns, `ip${option} rule del ${words}`)],
    };
  }
  const { route } = ending;
  if (!ENDS.has(route.type)) return undefined;
  const words = formatRoute(route);
  const table = route.table === TABLE_MAIN ? '' : ` table ${route.table}`;
  return {
    object: `route ${words}`,
    text,
    mend: [within(netns, `ip${option} route del ${words}${table}`)],
  };
}

/** An address that stands for all of a subnet. */
export function ofBroadcast({ netns }: Pick<Dropped, 'netns'>, ip: Ip): Blame {
  return {
    object: `address ${ip}`,
    text: 'is the broadcast address of a subnet here: no single host has it, and nobody answers',
    mend: [within(netns, `ip route show table local type broadcast ${ip}`)],
  };
}

/** That there is no route, with the one that would be it where that is to be seen. */
function ofMissing(host: Host, netns: NetnsName, destination: Ip): Blame {
  const gateway = findGateway(host, netns, destination);
  const isFirst = gateway !== undefined && !hasDefaultRoute(host, netns, familyOf(destination));
  const words = `${isFirst ? 'default' : destination} via ${gateway ?? 'GATEWAY'}`;
  return {
    object: `route to ${destination}`,
    text: 'is missing',
    mend: [within(netns, `ip${familyOption(destination)} route add ${words}`)],
  };
}

/** The route or the policy rule that ends packets, or that there is no route. */
export function ofRouting(host: Host, verdict: Dropped, flows: readonly Flow[]): Blame {
  const { netns, lookedUp } = verdict;
  if (lookedUp?.kind !== 'route') return ofPacket(verdict);
  const { destination } = lookedUp;
  const state = findNetns(host, netns);
  if (!state) return ofMissing(host, netns, destination);
  const fallen = findFallen(host, netns, destination);
  // What was asked with the source that the packet has was asked last.
  for (const flow of flows.toReversed()) {
    const ending = endingOf(state, destination, flow);
    const found = ending && ofEnding(netns, destination, ending);
    if (found) return found;
  }
  return fallen ? linkDown(fallen) : ofMissing(host, netns, destination);
}
