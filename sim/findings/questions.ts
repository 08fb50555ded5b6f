/** Whom each pod is to reach: its gateway, another pod of its segment, one of another segment, and the world outside. */
import type { Address } from '../../model/address.ts';
import { connectedPrefix } from '../../model/connected.ts';
import { getLink, getNetns } from '../../model/host.ts';
import { type Family, type Ip, parseIp } from '../../model/ip.ts';
import { prefixContains } from '../../model/prefix.ts';
import { OWN_PACKETS, lookup } from '../../model/route-lookup.ts';
import { type Look, type PodLink, defaultRoutes, globalAddresses, hasAddress } from './look.ts';

export interface Question {
  readonly from: PodLink;
  readonly source: Ip;
  readonly destination: Ip;
  /** Is it an address of the pod's own segment, to which it gets without a router? */
  readonly isNear: boolean;
  /** Who is asked; null: somebody outside. */
  readonly to: PodLink | null;
}

/** Addresses that nobody has (RFC 5737, RFC 3849): they stand for the world outside. */
export const OUTSIDE = { 4: parseIp('192.0.2.1'), 6: parseIp('2001:db8::1') } as const;

const FAMILIES = [4, 6] as const;

/** What a bridge floods goes to each of its ports: so many frames are sent for one segment at most, and with more pods some are left out. */
const FRAMES = 50_000;

/** Pods of a segment that are asked, spread over all of them. */
function sample(pods: readonly PodLink[]): PodLink[] {
  const most = Math.max(2, Math.floor(FRAMES / (4 * pods.length)));
  if (pods.length <= most) return [...pods];
  const step = pods.length / most;
  return Array.from({ length: most }, (_, i) => pods[Math.floor(i * step)]).filter(
    (pod) => pod !== undefined,
  );
}

function firstOf(pod: PodLink, family: Family): Address | undefined {
  return globalAddresses(pod, family)[0];
}

/** The gateway of a pod, where its node is that. */
function gatewayOf({ host }: Look, pod: PodLink, family: Family): Ip | undefined {
  const [route] = defaultRoutes(host, pod, family);
  const gateway = route?.gateway ?? undefined;
  return gateway !== undefined && hasAddress(host, pod.node, gateway) ? gateway : undefined;
}

function isIsolated({ host }: Look, { hostEnd }: PodLink): boolean {
  return getLink(host, hostEnd).port?.isolated === true;
}

function near(look: Look, pods: readonly PodLink[], family: Family): Question[] {
  return pods.flatMap((from, index) => {
    const own = firstOf(from, family);
    if (!own) return [];
    const ask = (destination: Ip, to: PodLink | null): Question => ({
      from,
      source: own.ip,
      destination,
      to,
      isNear: true,
    });
    const gateway = gatewayOf(look, from, family);
    const next = pods[(index + 1) % pods.length];
    const other = next && next.netns !== from.netns ? firstOf(next, family) : undefined;
    const mayAsk =
      other &&
      next &&
      prefixContains(connectedPrefix(own), other.ip) &&
      !(isIsolated(look, from) && isIsolated(look, next));
    return [
      ...(gateway === undefined ? [] : [ask(gateway, null)]),
      ...(mayAsk ? [ask(other.ip, next)] : []),
    ];
  });
}

/** One of each segment to one of the next, as far as their node is the gateway of both. */
function far(look: Look, groups: readonly (readonly PodLink[])[], family: Family): Question[] {
  const routed = groups.flatMap(
    (pods) => pods.find((pod) => firstOf(pod, family) && gatewayOf(look, pod, family)) ?? [],
  );
  return routed.flatMap((from, index) => {
    const to = routed.filter(({ node }) => node === from.node && node !== undefined);
    const next = to[(to.indexOf(from) + 1) % to.length];
    const [source, destination] = [firstOf(from, family), next && firstOf(next, family)];
    const ask = (ip: Ip, pod: PodLink | null): Question[] =>
      source ? [{ from, source: source.ip, destination: ip, to: pod, isNear: false }] : [];
    const out = lookup(getNetns(look.host, from.node), OUTSIDE[family], OWN_PACKETS);
    const isFirst = routed.findIndex(({ node }) => node === from.node) === index;
    return [
      ...(next && next !== from && next.netns !== from.netns && destination
        ? ask(destination.ip, next)
        : []),
      ...(isFirst && out?.type === 'unicast' ? ask(OUTSIDE[family], null) : []),
    ];
  });
}

/** The questions of a host's pods. Those whose link is down ask nothing. */
export function questionsOf(look: Look): Question[] {
  const up = look.pods.filter(({ link }) => link.up);
  const groups = [...new Set(up.map(({ segment }) => segment))].map((segment) =>
    up.filter((pod) => pod.segment === segment),
  );
  return FAMILIES.flatMap((family) => [
    ...groups.flatMap((pods) => near(look, sample(pods), family)),
    ...far(look, groups, family),
  ]);
}

/** A question in words. */
export function formatQuestion({ from, source, destination, to }: Question): string {
  const whom = to ? `${destination} in netns ${to.netns}` : destination;
  return `netns ${from.netns}: ${source} asks ${whom}`;
}
