/**
 * What the reference plugin `loopback` does: the loopback link of a pod's netns goes up in ADD and down in DEL. The
 * kernel alone knows of it: there is no record, and nothing that two calls could share.
 */
import { applyPlan } from '../../backends/apply.ts';
import type { Scope } from '../../backends/backend.ts';
import type { DesiredHost } from '../../model/desired.ts';
import { type Host, findLink, findNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { familyOf, isLoopback } from '../../model/ip.ts';
import { ZERO_MAC } from '../../model/mac.ts';
import { formatFailure } from '../../model/message.ts';
import { describeOp } from '../../model/ops.ts';
import { type Plan, planTo } from '../../model/plan.ts';
import { formatPrefixedIp } from '../../model/prefix.ts';
import { linkSysctlKey } from '../../model/sysctl.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { Request } from '../cni/request.ts';
import { type CniResult, parseResult } from '../cni/result.ts';
import type { CallContext } from './context.ts';
import { checkNetns } from './netns.ts';

/** What of the surroundings of a call this one works with. */
export type LoopbackContext = Pick<CallContext, 'backend' | 'isOwnNetns' | 'clock'>;

/** The link, whatever CNI_IFNAME says. */
const LOOPBACK = 'lo' as Ifname;

function loopbackScope(netns: string): Scope {
  return {
    [netns]: {
      links: [LOOPBACK],
      routes: 'all',
      // Without IPv6 the link gets no ::1.
      sysctls: [linkSysctlKey(6, LOOPBACK, 'disable_ipv6')],
      nftables: [],
    },
  };
}

function observe(context: LoopbackContext, netns: string): Host {
  if (netns === '') return { netns: {} };
  checkNetns(context, netns);
  return context.backend.observe(loopbackScope(netns));
}

function missingNetns(code: number, netns: string): CniError {
  return new CniError(code, `CNI_NETNS "${netns}" does not exist or is not a network namespace`);
}

function planFrom(observed: Host, desired: DesiredHost): Plan {
  const planning = planTo(observed, desired);
  if (planning.ok) return planning.plan;
  throw new CniError(CNI_ERROR.kernel, formatFailure(planning.op, planning.fault));
}

function wanted(netns: string, up: boolean): DesiredHost {
  return { [netns]: { links: { [LOOPBACK]: { kind: 'any', up } } } };
}

/** Refuses a link that somebody uses for more than a loopback. */
function checkAddresses(observed: Host, netns: string): void {
  const addresses = findLink(observed, { netns, ifname: LOOPBACK })?.addresses ?? [];
  const other = addresses.find(({ ip }) => !isLoopback(ip));
  if (other)
    throw new CniError(
      CNI_ERROR.taken,
      `loopback interface found with non-loopback address "${other.ip}"`,
      `link "${LOOPBACK}" of netns "${netns}" has ${formatPrefixedIp(other)}`,
    );
}

/**
 * What brings the link up, by ADD or where CHECK finds it down. Throws a CniError when there is no such netns or link, or
 * the link has an address that is not a loopback's.
 */
function planUp(context: LoopbackContext, netns: string): Plan {
  const observed = observe(context, netns);
  if (!findNetns(observed, netns)) throw missingNetns(CNI_ERROR.invalidEnvironment, netns);
  checkAddresses(observed, netns);
  return planFrom(observed, wanted(netns, true));
}

/** What brings the link down: nothing where there is no such netns, or none was named. */
function planDown(context: LoopbackContext, netns: string): Plan {
  const observed = observe(context, netns);
  return planFrom(observed, findNetns(observed, netns) ? wanted(netns, false) : {});
}

/** What ADD or DEL would do, or what would mend what CHECK finds. Throws what the call would throw before it changed anything. */
export function planLoopback(
  context: LoopbackContext,
  verb: 'ADD' | 'DEL' | 'CHECK',
  netns: string,
): Plan {
  return verb === 'DEL' ? planDown(context, netns) : planUp(context, netns);
}

/** Carries out a plan, of which one operation is all there is: a failure leaves nothing to undo. */
function carryOut({ backend, clock }: LoopbackContext, plan: Plan): void {
  const { failed } = applyPlan(backend, plan, undefined, clock);
  if (failed) throw new CniError(CNI_ERROR.kernel, formatFailure(failed.op, failed.fault));
}

/** The link with its first address of each family, as the reference answers. */
function loopbackResult(observed: Host, netns: string): CniResult {
  const addresses = findLink(observed, { netns, ifname: LOOPBACK })?.addresses ?? [];
  return {
    interfaces: [{ name: LOOPBACK, mac: ZERO_MAC, sandbox: netns }],
    ips: ([4, 6] as const).flatMap((family) => {
      const first = addresses.find(({ ip }) => familyOf(ip) === family);
      return first ? [{ interface: 0, address: formatPrefixedIp(first) }] : [];
    }),
    routes: [],
    dns: {},
  };
}

/**
 * ADD: brings the link up and answers what it has, or the result of the plugin before this one. Throws the error to answer;
 * then nothing has changed.
 */
export function addLoopback(context: LoopbackContext, { netns, config }: Request): CniResult {
  const { prevResult } = config;
  const given = prevResult === undefined ? undefined : parseResult(prevResult, 'prevResult');
  const plan = planUp(context, netns);
  carryOut(context, plan);
  if (given) return given;
  // The addresses come from the kernel, so it is the kernel that is asked for them.
  const observed = plan.ops.length === 0 ? plan.before : observe(context, netns);
  return loopbackResult(observed, netns);
}

/** DEL: brings the link down. Throws the error to answer; a netns that is gone, or that nobody named, is none. */
export function delLoopback(context: LoopbackContext, { netns }: Request): void {
  carryOut(context, planDown(context, netns));
}

/**
 * CHECK: throws an error of code 103 unless the link is up. As in the reference, prevResult is not asked for: a netns is
 * looked at, not an attachment.
 */
export function checkLoopback(context: LoopbackContext, { netns }: Request): void {
  const observed = observe(context, netns);
  if (!findNetns(observed, netns)) throw missingNetns(CNI_ERROR.drift, netns);
  const link = findLink(observed, { netns, ifname: LOOPBACK });
  if (!link) throw new CniError(CNI_ERROR.drift, `netns "${netns}" has no link "${LOOPBACK}"`);
  if (link.up) return;
  const repair = describeOp({ op: 'link.set', netns, ifname: LOOPBACK, set: { up: true } });
  throw new CniError(
    CNI_ERROR.drift,
    'loopback interface is down',
    `netns "${netns}": ${repair.join('; ')}`,
  );
}
