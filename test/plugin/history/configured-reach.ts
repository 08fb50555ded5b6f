/**
 * Who is to reach whom, read off configurations alone: what is on a pod's link, what its routes say, who forwards, and
 * whose sources are replaced. It knows nothing of links, tables and packets.
 */
import { type Family, type Ip, familyOf, ipBits, ipFromBits } from '../../../model/ip.ts';
import {
  DEFAULT_PREFIX,
  type Prefix,
  parsePrefix,
  prefixContains,
  prefixIp,
  prefixLengthOf,
} from '../../../model/prefix.ts';
import type { RawConfig } from '../../arbitraries/configuration.ts';

/** An attachment as its configuration has it, with the addresses that it was given. */
export interface Party {
  readonly raw: RawConfig;
  readonly ips: readonly Ip[];
  /** All attachments of its pod, itself among them. */
  readonly pod: readonly Party[];
}

/** Why configurations do not tell whether one reaches the other. */
export type Unknowable =
  | 'by which attachment of the pod'
  | 'whose policy, as others of its link are damaged'
  | 'two links of the host are in one VLAN';

/** Are they to reach each other? */
export type Expected = boolean | Unknowable;

/** The policies of the attachments that the host hears by one link; undefined where those are not in force for certain. */
export type PoliciesOf = (link: string) => readonly string[] | undefined;

type Way = 'on the link' | 'by the gateway';

/** Is the host to be the gateway of its pods? */
function isGateway(raw: RawConfig): boolean {
  return raw['mode'] === 'ptp' || raw['isGateway'] === true || raw['isDefaultGateway'] === true;
}

function subnetsOf(raw: RawConfig): Prefix[] {
  const { ranges = [] } = (raw['ipam'] ?? {}) as {
    readonly ranges?: readonly (readonly { readonly subnet: string }[])[];
  };
  return ranges.flatMap((set) => set.map(({ subnet }) => parsePrefix(subnet)));
}

/** The subnet of an address that the network has given. */
function subnetIn(raw: RawConfig, ip: Ip): Prefix {
  const subnet = subnetsOf(raw).find((each) => prefixContains(each, ip));
  if (subnet === undefined) throw new Error(`${ip} is of no subnet of ${String(raw['name'])}`);
  return subnet;
}

/** The gateway of an address: the first of its subnet, since no network of a history names another. */
export function gatewayIn(raw: RawConfig, ip: Ip): Ip {
  return ipFromBits(familyOf(ip), ipBits(prefixIp(subnetIn(raw, ip))) + 1n);
}

/** The routes of a pod for a family, where it has an address of that. */
function routesOf({ raw, ips }: Party, family: Family): Map<Prefix, Way> {
  if (!ips.some((ip) => familyOf(ip) === family)) return new Map();
  const { routes = [] } = (raw['ipam'] ?? {}) as {
    readonly routes?: readonly { readonly dst: string }[];
  };
  const way = raw['mode'] === 'ptp' ? 'by the gateway' : 'on the link';
  const all: (readonly [Prefix, Way])[] = [
    ...routes.map(({ dst }) => [parsePrefix(dst), 'by the gateway'] as const),
    ...(raw['isDefaultGateway'] === true
      ? [[DEFAULT_PREFIX[family], 'by the gateway'] as const]
      : []),
    ...ips.map((ip) => [subnetIn(raw, ip), way] as const),
  ];
  return new Map(all.filter(([prefix]) => familyOf(prefix) === family));
}

/** By which way a pod sends what is for an address; undefined: by none. */
function wayTo(party: Party, ip: Ip): Way | undefined | Unknowable {
  const ways = party.pod
    .flatMap((each) =>
      [...routesOf(each, familyOf(ip))].map(([prefix, way]) => ({ each, prefix, way })),
    )
    .filter(({ prefix }) => prefixContains(prefix, ip));
  const longest = Math.max(...ways.map(({ prefix }) => prefixLengthOf(prefix)));
  const best = ways.filter(({ prefix }) => prefixLengthOf(prefix) === longest);
  if (best.some(({ each }) => each !== party)) return 'by which attachment of the pod';
  return best[0]?.way;
}

/** The host's link that hears pods of a network: none but its own in mode `ptp`. */
export function hearingLink(raw: RawConfig): string | undefined {
  if (raw['mode'] === 'ptp') return undefined;
  const vlan = Number(raw['vlan'] ?? 0);
  return vlan !== 0 && isGateway(raw) ? `${String(raw['bridge'])}.${vlan}` : String(raw['bridge']);
}

/** The policy of a network where it has one. */
export function policyOf(raw: RawConfig): string | undefined {
  const policy = raw['ingressPolicy'];
  return typeof policy === 'string' && policy !== 'open' ? policy : undefined;
}

/** Is what its pods send without a tag of VLAN 1, as it is where no VLAN is chosen? */
function isVlan1(raw: RawConfig): boolean {
  return Number(raw['vlan'] ?? 1) === 1;
}

/** May what is forwarded pass from the pods of one network to those of another? The policy is that of the bridge's pods. */
function mayPass(from: RawConfig, to: RawConfig, policiesOf: PoliciesOf): Expected {
  const [one, other] = [hearingLink(from), hearingLink(to)];
  if (one === undefined || other === undefined) return true;
  const [ofOne, ofOther] = [policiesOf(one), policiesOf(other)];
  if (!ofOne || !ofOther) return 'whose policy, as others of its link are damaged';
  const isPoliced = ofOne.length > 0 || ofOther.length > 0;
  if (isPoliced && one !== other && from['bridge'] === to['bridge'] && isVlan1(from) && isVlan1(to))
    return 'two links of the host are in one VLAN';
  if (one === other && ofOne.includes('same-bridge')) return true;
  return ofOne.length === 0 || ofOther.length === 0;
}

function isDropped({ raw }: Party): boolean {
  return raw['podVerdict'] === 'drop';
}

/** May pods of a network not speak to each other on their bridge? */
function isIsolated(raw: RawConfig): boolean {
  return raw['portIsolation'] === true || policyOf(raw) === 'isolated';
}

/** Is the source replaced of what a pod sends from one address to another? */
export function isMasqueraded(raw: RawConfig, from: Ip, to: Ip): boolean {
  return raw['ipMasq'] === true && !prefixContains(subnetIn(raw, from), to);
}

/** The first that is not true; true where all are. */
function allOf(...all: readonly (() => Expected)[]): Expected {
  for (const each of all) {
    const expected = each();
    if (expected !== true) return expected;
  }
  return true;
}

function sends(party: Party, ip: Ip, way: Way): Expected {
  const found = wayTo(party, ip);
  return found === undefined || found === 'on the link' || found === 'by the gateway'
    ? found === way
    : found;
}

/** Is a pod, from one address, to reach another pod at another, and its answer to come back? */
export function reachesPod(
  [from, own]: readonly [Party, Ip],
  [to, other]: readonly [Party, Ip],
  policiesOf: PoliciesOf,
): Expected {
  const way = wayTo(from, other);
  if (way === 'on the link')
    return allOf(
      () => !isIsolated(from.raw),
      () => sends(to, own, 'on the link'),
    );
  if (way !== 'by the gateway') return way ?? false;
  const seen = isMasqueraded(from.raw, own, other) ? gatewayIn(to.raw, other) : own;
  return allOf(
    () => isGateway(from.raw) && isGateway(to.raw),
    () => !isDropped(from) && !isDropped(to),
    () => mayPass(from.raw, to.raw, policiesOf),
    // The gateway itself is on the link, whatever is behind it.
    () => (seen === own ? sends(to, own, 'by the gateway') : reachesGateway([to, other])),
  );
}

/** Are a pod and its gateway to reach each other? */
export function reachesGateway([party, ip]: readonly [Party, Ip]): Expected {
  const way = wayTo(party, gatewayIn(party.raw, ip));
  const isOwn = way === undefined || way === 'on the link' || way === 'by the gateway';
  return isOwn ? isGateway(party.raw) : way;
}

/** Are a pod and an address outside, which the host knows a way to, to reach each other? */
export function reachesOutside([party]: readonly [Party, Ip], outside: Ip): Expected {
  return allOf(
    () => sends(party, outside, 'by the gateway'),
    () => isGateway(party.raw) && !isDropped(party),
  );
}
