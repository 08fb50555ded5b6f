/** Removing from the kernel what an attachment has there. */
import { applyPlan } from '../../backends/apply.ts';
import { HOST_NETNS, type Host, type SysctlKey, findNetns, portsOf } from '../../model/host.ts';
import { type Ip, familyOf } from '../../model/ip.ts';
import { formatFailure } from '../../model/message.ts';
import { tableKey } from '../../model/nftables.ts';
import type { EffectOp, Op } from '../../model/op.ts';
import { type Plan, type Planning, planTo, withEffects, withFirst } from '../../model/plan.ts';
import type { Attachment } from '../attachment.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import { type Departing, detachScope, detached } from '../network.ts';
import { POD_MAPS } from '../pod-map.ts';
import { TABLE } from '../table.ts';
import { gatewayLinks } from '../vlan.ts';
import type { CallContext } from './context.ts';
import { logReport } from './report.ts';
import { sharedUse, spareClaims } from './usage.ts';

/** The kernel removes links on its own when their netns goes: what has vanished between reading and acting is looked for again. */
const ATTEMPTS = 3;

/** Is the bridge, which no record needs any more, somebody's all the same? Of a state file that was lost, the pods are still there. */
function hasOtherPorts(context: CallContext, attachment: Attachment): boolean {
  const { bridge, hostIfname } = attachment;
  const own = [hostIfname, ...gatewayLinks(attachment)];
  const observed = context.backend.observe({
    [HOST_NETNS]: { links: 'all', routes: 'none', sysctls: [], nftables: [] },
  });
  const netns = findNetns(observed, HOST_NETNS);
  return netns !== undefined && portsOf(netns, bridge).some((port) => !own.includes(port.ifname));
}

/**
 * The addresses to which host ports lead without a connection that could end: who goes on sending to the port is to be
 * heard by whoever has it next. All else that the kernel tracks of the pod is forgotten when its address is given to
 * another, and asks nothing of DEL, which would wait for the kernel to look through all of it.
 */
function datagramAddresses({ hostPorts }: Attachment): Ip[] {
  const ports = hostPorts?.ports.filter(({ protocol }) => protocol !== 'tcp') ?? [];
  return [...new Set(ports.map(({ podIp }) => podIp))];
}

/** Does something in our tables keep packets of the pod back, or from it? Then it has to outlive the pod's link. */
function isGuarded(attachment: Attachment, observed: Host): boolean {
  const { addresses, macSpoofCheck, ipSpoofCheck, ingressPolicy } = attachment;
  const { nftables = {} } = findNetns(observed, HOST_NETNS) ?? {};
  const sets = nftables[tableKey(TABLE)]?.sets ?? {};
  // Who isolates a pod changes its element: what the record says is how it began.
  const isHeldBack = addresses.some(({ ip }) => {
    const element = sets[POD_MAPS[familyOf(ip)]]?.elements[ip];
    return element !== undefined && element.verdict?.verdict !== 'accept';
  });
  return (
    isHeldBack || macSpoofCheck === true || ipSpoofCheck === true || ingressPolicy !== undefined
  );
}

function takesElements(op: Op): boolean {
  return op.op === 'nft.batch' && op.commands.every((each) => each.do === 'delete element');
}

/**
 * Elements of a pod that nothing is kept from go before its links. What nf_tables frees of them, whoever closes the socket
 * waits for (net/netfilter/nf_tables_api.c, nft_rcv_nl_event); while links go, that time passes anyway.
 */
function elementsFirst(attachment: Attachment, planning: Planning): Planning {
  return planning.ok && !isGuarded(attachment, planning.plan.before)
    ? withFirst(planning.plan, takesElements)
    : planning;
}

/** Does an operation give a setting of the pod's netns its former value back? */
function restoresSetting(attachment: Attachment, op: Op): op is Op & { op: 'sysctl.set' } {
  return op.op === 'sysctl.set' && op.netns === attachment.netns;
}

/** Settings of the pod's netns go back while its link says that the netns is the pod's. */
function settingsFirst(attachment: Attachment, planning: Planning): Planning {
  return planning.ok ? withFirst(planning.plan, (op) => restoresSetting(attachment, op)) : planning;
}

/** What removes an attachment from the kernel; `refused` are settings that the kernel does not give their former values back. */
export function planDetachment(
  context: CallContext,
  attachment: Attachment,
  departing: Departing = 'attachment',
  refused: readonly SysctlKey[] = [],
): Plan {
  const observed = context.backend.observe(detachScope(attachment));
  const shared = sharedUse(context.state, attachment);
  const recorded = { ...shared, sysctls: [...shared.sysctls, ...refused] };
  // Nobody knows in which VLANs those are that are not recorded.
  const use =
    !recorded.bridge && hasOtherPorts(context, attachment)
      ? { ...recorded, bridge: true, vlans: true }
      : recorded;
  const wanted = detached(attachment, observed, use, departing);
  const linked = settingsFirst(attachment, elementsFirst(attachment, planTo(observed, wanted)));
  const flush = datagramAddresses(attachment).map((ip): EffectOp => ({
    op: 'conntrack.flush',
    netns: HOST_NETNS,
    ip,
  }));
  const planning =
    linked.ok && departing === 'attachment' ? withEffects(linked.plan, flush) : linked;
  if (planning.ok) return planning.plan;
  throw new CniError(CNI_ERROR.kernel, formatFailure(planning.op, planning.fault));
}

/** Removes what the kernel has of an attachment. Throws when the kernel refuses; the record stays in either case. `verify` may refuse the plan. */
export function detach(
  context: CallContext,
  attachment: Attachment,
  departing: Departing = 'attachment',
  verify: (plan: Plan) => void = () => undefined,
): void {
  const refused: SysctlKey[] = [];
  for (let attempt = 1; ; attempt += 1) {
    const plan = planDetachment(context, attachment, departing, refused);
    if (attempt === 1) verify(plan);
    const report = applyPlan(context.backend, plan, undefined, context.clock);
    logReport(context, attachment, report);
    if (!report.failed) break;
    const { op, fault } = report.failed;
    if (restoresSetting(attachment, op)) {
      // Nothing that a pod had set may keep it from going.
      context.log('warn', `${formatFailure(op, fault)}: it stays as it is`);
      refused.push(op.key);
      attempt -= 1;
      continue;
    }
    if (attempt === ATTEMPTS)
      throw new CniError(CNI_ERROR.kernel, formatFailure(op, fault), 'DEL may be called again');
  }
  for (const object of spareClaims(context.state, attachment)) context.state.unclaim(object);
}
