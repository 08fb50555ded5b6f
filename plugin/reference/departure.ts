/** DEL of an attachment that the reference chain made and that has no record: everything of it is found by name. */
import { type ApplyReport, type Clock, applyPlan } from '../../backends/apply.ts';
import type { Backend, NetnsScope, Scope } from '../../backends/backend.ts';
import type { DesiredHost } from '../../model/desired.ts';
import { HOST_NETNS, type Host, findLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Ip } from '../../model/ip.ts';
import { type Link, type VethLink, isOurs } from '../../model/link.ts';
import { formatFailure } from '../../model/message.ts';
import { describeOp } from '../../model/ops.ts';
import { type Plan, planTo } from '../../model/plan.ts';
import { formatPrefixedIp } from '../../model/prefix.ts';
import type { Attachment } from '../attachment.ts';
import type { Log } from '../call/context.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { AttachmentKey } from '../cni/request.ts';
import { removeReferenceRules } from './chains.ts';
import { type Reservation, release, reservations, reservationsOf } from './host-local.ts';
import { referenceNames } from './names.ts';
import type { RunProgram } from './programs.ts';
import type { DepartingRules } from './removal.ts';
import { type ReferenceResult, addressesOf, readResult } from './result.ts';

/** What a DEL knows about an attachment of the reference chain. */
export interface Departure {
  readonly key: AttachmentKey;
  /** The pod's netns, '' when the runtime gave none. */
  readonly netns: string;
  /** The result of ADD as the runtime kept it, undefined when it did not. */
  readonly prevResult: unknown;
  /** The bridge of the configuration: what the pod's link must lead to when there is no result. */
  readonly bridge: Ifname;
  /** host-local's folder of the network (`hostLocalOf`), undefined when its `ipam` was something else. */
  readonly hostLocal: string | undefined;
  /** Does an attachment of ours have the address by now? Rules that only name an address are then not its own any more. */
  readonly isTaken?: (ip: Ip) => boolean;
}

/** What a departure works with. */
export interface DepartureContext {
  readonly backend: Backend;
  readonly run: RunProgram;
  readonly clock: Clock;
  readonly log: Log;
}

/** What was removed; everything is empty when nothing was left. */
export interface Departed {
  /** The links, as commands of iproute2. */
  readonly links: readonly string[];
  /** The packet filter's rules and chains, as the commands that ran. */
  readonly rules: readonly string[];
  /** What host-local had reserved. */
  readonly addresses: readonly Ip[];
}

/** The departure of an attachment that was imported: its record says what the result of ADD said. */
export function departureOf(
  { key, netns, bridge, hostIfname, hostMac, podMac, addresses }: Attachment,
  hostLocal: string | undefined,
): Departure {
  const interfaces = [
    { name: bridge },
    { name: hostIfname, mac: hostMac },
    { name: key.ifname, mac: podMac, sandbox: netns },
  ];
  const ips = addresses.map(({ ip, prefixLength, gateway }) => ({
    interface: interfaces.length - 1,
    address: formatPrefixedIp({ ip, prefixLength }),
    gateway,
  }));
  return { key, netns, prevResult: { interfaces, ips }, bridge, hostLocal };
}

/** A link may go by itself between reading and acting, with its netns. */
const ATTEMPTS = 3;

const LINKS: NetnsScope = { links: 'all', routes: 'none', sysctls: [], nftables: [] };

/** What has to be read to plan a departure: every link of the host, since the pod's may lead to any. */
export function departureScope({ key, netns }: Departure): Scope {
  return {
    [HOST_NETNS]: LINKS,
    ...(netns === '' ? {} : { [netns]: { ...LINKS, links: [key.ifname] } }),
  };
}

/** A veth of the host with its other end elsewhere, and not one that we made. */
function asHostEnd(link: Link | undefined): VethLink | undefined {
  return link?.kind === 'veth' && link.peer?.netns !== HOST_NETNS && !isOurs(link)
    ? link
    : undefined;
}

function hostLink(observed: Host, ifname: string): Link | undefined {
  return findLink(observed, { netns: HOST_NETNS, ifname: ifname as Ifname });
}

/** The host end as the pod's link shows it: named by the result, or a port of the network's bridge where there is none, or one of before 0.3.0. */
function throughPod(
  observed: Host,
  { key, netns, bridge }: Departure,
  { interfaces }: ReferenceResult,
): VethLink | undefined {
  const pod = findLink(observed, { netns, ifname: key.ifname });
  if (pod?.kind !== 'veth' || pod.peer?.netns !== HOST_NETNS) return undefined;
  const end = asHostEnd(findLink(observed, pod.peer));
  const isNamed = interfaces.some(({ name, sandbox }) => sandbox === '' && name === end?.ifname);
  const isKnown = interfaces.length === 0 ? end?.port?.master === bridge : isNamed;
  return isKnown ? end : undefined;
}

/** The host end as the result names it: a port of the result's bridge, or of the same MAC address. */
function byName(observed: Host, { interfaces }: ReferenceResult): VethLink | undefined {
  const ofHost = interfaces.filter(({ sandbox }) => sandbox === '');
  const bridges = ofHost
    .map(({ name }) => name)
    .filter((n) => hostLink(observed, n)?.kind === 'bridge');
  for (const { name, mac } of ofHost) {
    const end = asHostEnd(hostLink(observed, name));
    if (end && ((end.port && bridges.includes(end.port.master)) || (mac && end.mac === mac)))
      return end;
  }
  return undefined;
}

/** The reservations that bear on a departure. */
interface Reserved {
  readonly own: readonly Reservation[];
  readonly others: readonly Reservation[];
}

function reservedFor({ key, hostLocal }: Departure): Reserved {
  const all = hostLocal === undefined ? [] : reservations(hostLocal).reservations;
  const own = reservationsOf(all, key.containerId, key.ifname);
  return { own, others: all.filter((each) => !own.includes(each)) };
}

/** The addresses of other links of the container in this network. */
function sharedAddresses({ key }: Departure, { others }: Reserved): Ip[] {
  return others.filter((each) => each.containerId === key.containerId).map(({ ip }) => ip);
}

function desiredWithout(departure: Departure, observed: Host, reserved: Reserved): DesiredHost {
  const result = readResult(departure.prevResult);
  const end = throughPod(observed, departure, result) ?? byName(observed, result);
  const shaper = hostLink(observed, referenceNames(departure.key).shaper);
  const isShared = sharedAddresses(departure, reserved).length > 0;
  const gone = [
    ...(end ? [end.ifname] : []),
    ...(shaper?.kind === 'ifb' && !isShared ? [shaper.ifname] : []),
  ];
  return {
    [HOST_NETNS]: { links: Object.fromEntries(gone.map((ifname) => [ifname, 'absent' as const])) },
  };
}

function planLinks(backend: Backend, departure: Departure, reserved: Reserved): Plan {
  const observed = backend.observe(departureScope(departure));
  const planning = planTo(observed, desiredWithout(departure, observed, reserved));
  if (planning.ok) return planning.plan;
  throw new CniError(CNI_ERROR.kernel, formatFailure(planning.op, planning.fault));
}

/** The kernel's part of a departure: the link with both ends, and the ifb that shaped it. The bridge stays. */
export function planDeparture(backend: Backend, departure: Departure): Plan {
  return planLinks(backend, departure, reservedFor(departure));
}

/** The rules to look for: those of addresses that somebody else has by now are not ours to remove. */
function departingRules(departure: Departure, reserved: Reserved): DepartingRules {
  const { key, prevResult, isTaken = () => false } = departure;
  const had = [
    ...addressesOf(readResult(prevResult), key.ifname).map(({ ip }) => ip),
    ...reserved.own.map(({ ip }) => ip),
  ];
  const othersHave = new Set(reserved.others.map(({ ip }) => ip));
  return {
    key,
    addresses: [...new Set(had)].filter((ip) => !othersHave.has(ip) && !isTaken(ip)),
    shared: sharedAddresses(departure, reserved),
  };
}

function commandsOf(report: ApplyReport): string[] {
  return report.ran.flatMap(({ op, fault }) => (fault ? [] : describeOp(op)));
}

function removeLinks(
  context: DepartureContext,
  departure: Departure,
  reserved: Reserved,
): string[] {
  const done: string[] = [];
  for (let attempt = 1; ; attempt += 1) {
    const plan = planLinks(context.backend, departure, reserved);
    const report = applyPlan(context.backend, plan, undefined, context.clock);
    done.push(...commandsOf(report));
    if (!report.failed) return done;
    const { op, fault } = report.failed;
    if (attempt === ATTEMPTS)
      throw new CniError(CNI_ERROR.kernel, formatFailure(op, fault), 'DEL may be called again');
  }
}

/**
 * Removes an attachment of the reference chain: its links, its rules, and then its addresses, so that nobody gets an
 * address whose rules are still to go. May be called again, also after it failed. Throws a CniError.
 */
export function depart(context: DepartureContext, departure: Departure): Departed {
  const { key, hostLocal } = departure;
  const reserved = reservedFor(departure);
  const say = (message: string): void =>
    context.log('info', message, {
      container: key.containerId,
      network: key.network,
      ifname: key.ifname,
    });

  const links = removeLinks(context, departure, reserved);
  for (const line of links) say(line);
  const rules = removeReferenceRules(context.run, departingRules(departure, reserved));
  for (const line of rules) say(line);
  const addresses = hostLocal === undefined ? [] : release(hostLocal, key.containerId, key.ifname);
  for (const ip of addresses) say(`release ${hostLocal}/${ip}`);
  return { links, rules, addresses };
}
