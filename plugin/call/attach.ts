/** Making the network of an attachment whose record is written, or leaving nothing of it. */
import { applyPlan } from '../../backends/apply.ts';
import { BRIDGE_VLANS } from '../../backends/backend.ts';
import { sameJson } from '../../model/canonical.ts';
import { HOST_NETNS, type Host, findLink, findNetns } from '../../model/host.ts';
import { familyOf } from '../../model/ip.ts';
import { IP6_MIN_MTU_BYTES } from '../../model/link.ts';
import { formatFailure } from '../../model/message.ts';
import type { EffectOp } from '../../model/op.ts';
import { type Plan, planTo, withEffects } from '../../model/plan.ts';
import { formatPrefixedIp } from '../../model/prefix.ts';
import { type Attachment, formatKey } from '../attachment.ts';
import { linkInTheWay } from '../bandwidth.ts';
import { bridgeVlanProblem, conflictingAddresses, gatewayAddresses } from '../bridge.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import { formatPort } from '../host-port.ts';
import { attachScope, attached, isOwnEnd, localnetKey } from '../network.ts';
import { isOwnPodEnd } from '../pod.ts';
import type { SharedObject } from '../state.ts';
import { bridgeInTheWay, gatewayRef, vlanField } from '../vlan.ts';
import type { CallContext } from './context.ts';
import { releaseDelegated } from './delegated.ts';
import { detach } from './detach.ts';
import { type Draft, refuseExisting } from './draft.ts';
import { isFirst, warnOfDrops } from './drops.ts';
import { logReport } from './report.ts';
import { retreatOf } from './retreat.ts';
import { gatewayObject, localhostObject, portWords, usesOf } from './usage.ts';

/** Refuses to take a name from a link that is somebody else's. */
export function checkNames(attachment: Attachment, observed: Host): void {
  const { bridge, hostIfname } = attachment;
  const shared =
    attachment.mode === 'ptp'
      ? undefined
      : findLink(observed, { netns: HOST_NETNS, ifname: bridge });
  if (shared && shared.kind !== 'bridge') {
    throw new CniError(
      CNI_ERROR.taken,
      `link "${bridge}" already exists but is not a bridge`,
      `it is a ${shared.kind === 'device' ? shared.deviceKind || 'device' : shared.kind}`,
    );
  }
  const other = bridgeInTheWay(attachment, observed);
  if (other !== undefined) {
    throw new CniError(
      CNI_ERROR.taken,
      `link "${other}" already exists and is a bridge`,
      'the gateways of the VLAN need the name',
    );
  }
  const taken = linkInTheWay(attachment, observed);
  if (taken !== undefined) {
    throw new CniError(
      CNI_ERROR.taken,
      `link "${taken}" already exists and is not ours`,
      'the limit of what the pod sends needs the name',
    );
  }
  const end = findLink(observed, { netns: HOST_NETNS, ifname: hostIfname });
  if (end && !isOwnEnd(attachment, end)) {
    throw new CniError(
      CNI_ERROR.taken,
      `link "${hostIfname}" already exists and is not ours`,
      `it is a ${end.kind}; the attachment needs the name`,
    );
  }
}

/** Refuses VLANs where nothing would keep them apart. */
function checkVlans(attachment: Attachment, observed: Host): void {
  const { vlans } = attachment;
  if (!vlans) return;
  if (observed.kernel?.bridgeVlans === false)
    throw new CniError(
      CNI_ERROR.unsupportedField,
      `unsupported field: ${vlanField(vlans)}: the kernel has no ${BRIDGE_VLANS}, it answers EOPNOTSUPP`,
    );
  const problem = bridgeVlanProblem(attachment, observed);
  if (problem !== undefined)
    throw new CniError(
      CNI_ERROR.taken,
      problem,
      `it is not ours to change: ip link set ${attachment.bridge} type bridge vlan_filtering 1`,
    );
}

/** Refuses an MTU by which the bridge, which has the least of its ports' (K-1.11), would lose its IPv6 addresses for good (K-4.4). */
function checkBridgeMtu(attachment: Attachment, observed: Host): void {
  const { mode, bridge, mtuBytes } = attachment;
  if (mode === 'ptp' || mtuBytes >= IP6_MIN_MTU_BYTES) return;
  const found = findLink(observed, { netns: HOST_NETNS, ifname: bridge });
  const lost = found?.addresses.find(({ ip, scope }) => familyOf(ip) === 6 && scope !== 'link');
  if (lost)
    throw new CniError(
      CNI_ERROR.taken,
      `an MTU of ${mtuBytes} would take address ${formatPrefixedIp(lost)} from bridge "${bridge}"`,
      `a bridge has the least MTU of its ports, and IPv6 needs ${IP6_MIN_MTU_BYTES}`,
    );
}

/** What stands in the way of the attachment, which no plan can or may remove. */
function checkObserved(attachment: Attachment, healing: boolean, observed: Host): void {
  const { netns, key, bridge } = attachment;
  if (!findNetns(observed, netns)) {
    throw new CniError(
      CNI_ERROR.invalidEnvironment,
      `CNI_NETNS "${netns}" does not exist or is not a network namespace`,
    );
  }
  const end = findLink(observed, { netns, ifname: key.ifname });
  if (end && !(healing && isOwnPodEnd(attachment, end))) {
    throw new CniError(
      CNI_ERROR.taken,
      `link "${key.ifname}" already exists in netns "${netns}"`,
      `it is a ${end.kind}; the attachment needs the name`,
    );
  }
  checkNames(attachment, observed);
  checkVlans(attachment, observed);
  checkBridgeMtu(attachment, observed);
  const [conflict] = attachment.forceAddress ? [] : conflictingAddresses(attachment, observed);
  if (conflict) {
    const carrier = gatewayRef(attachment).ifname;
    const isBridge = carrier === bridge;
    const wanted = gatewayAddresses(attachment).map(formatPrefixedIp).join(', ');
    throw new CniError(
      CNI_ERROR.taken,
      `${isBridge ? 'bridge' : 'link'} "${carrier}" already has address ${formatPrefixedIp(conflict)}, which conflicts with ${wanted}`,
      'with "forceAddress": true it is replaced',
    );
  }
}

/** Who had an address before may still be remembered: by the host's connections, and by neighbours with his MAC address. */
function effectsOf(context: CallContext, attachment: Attachment): EffectOp[] {
  const { key, netns, addresses, podMac, dad } = attachment;
  const ofAddresses = addresses
    .filter(({ ip }) => context.state.wasUsed(key.network, ip))
    .flatMap(({ ip }): EffectOp[] => {
      const flush: EffectOp = { op: 'conntrack.flush', netns: HOST_NETNS, ip };
      // What is still looked for on the link is not to be announced there (RFC 4862, section 5.4).
      if (dad && familyOf(ip) === 6) return [flush];
      return [flush, { op: 'address.announce', netns, ifname: key.ifname, ip, mac: podMac }];
    });
  return [...portFlushes(attachment), ...ofAddresses];
}

/**
 * Who sent to a port before it led to the pod would go on being answered by nobody. Of UDP alone: a connection of another
 * protocol to a port where nobody listened has ended, and one through the host to the same port elsewhere is to live on.
 */
function portFlushes({ hostPorts }: Attachment): EffectOp[] {
  return ([4, 6] as const).flatMap((family): EffectOp[] => {
    const ports = (hostPorts?.ports ?? [])
      .filter(({ protocol, podIp }) => protocol === 'udp' && familyOf(podIp) === family)
      .map(({ protocol, port }) => ({ protocol, port }));
    return ports.length === 0 ? [] : [{ op: 'conntrack.flush', netns: HOST_NETNS, family, ports }];
  });
}

/** The plan of an ADD, from what is there now. */
export function planAttachment(context: CallContext, { attachment, begun }: Draft): Plan {
  const observed = context.backend.observe(attachScope(attachment));
  checkObserved(attachment, begun !== undefined, observed);
  const linked = planTo(observed, attached(attachment, observed));
  const planning = linked.ok ? withEffects(linked.plan, effectsOf(context, attachment)) : linked;
  if (planning.ok) return planning.plan;
  throw new CniError(
    CNI_ERROR.kernel,
    formatFailure(planning.op, planning.fault),
    'the plan was not begun',
  );
}

/** What the plan does to a link that may be somebody else's, and of which nothing there would say that it is ours. */
function claimsOf(attachment: Attachment, plan: Plan): SharedObject[] {
  return plan.ops.flatMap((op) =>
    op.op === 'address.add' &&
    op.netns === HOST_NETNS &&
    op.ifname === gatewayRef(attachment).ifname
      ? [gatewayObject(attachment, op.address.ip)]
      : op.op === 'sysctl.set' && op.key === localnetKey(attachment)
        ? [localhostObject(attachment)]
        : [],
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** May refuse a plan before it is begun, by throwing. */
export type Verify = (plan: Plan) => void;

/** How making the network of a draft ended; `clean`: what was done is undone. */
export type Attaching =
  | { readonly ok: true; readonly plan: Plan }
  | { readonly ok: false; readonly error: unknown; readonly clean: boolean };

/** Makes the network of a draft whose record is written, or goes back to where it began. */
export function attach(context: CallContext, draft: Draft, verify: Verify): Attaching {
  const { attachment } = draft;
  let clean = true;
  let claims: SharedObject[] = [];
  try {
    const plan = planAttachment(context, draft);
    verify(plan);
    claims = claimsOf(attachment, plan).filter((object) => !context.state.isClaimed(object));
    for (const object of claims) context.state.claim(object);
    // Until the report says otherwise.
    clean = false;
    const report = applyPlan(context.backend, plan, retreatOf(attachment, plan), context.clock);
    logReport(context, attachment, report);
    clean = report.clean;
    if (!report.failed) {
      if (isFirst(plan)) warnOfDrops(context, attachment);
      return { ok: true, plan };
    }
    const { op, fault } = report.failed;
    throw new CniError(
      CNI_ERROR.kernel,
      formatFailure(op, fault),
      clean ? 'everything was undone' : 'not everything could be undone: DEL will',
    );
  } catch (error) {
    if (clean) for (const object of claims) context.state.unclaim(object);
    return { ok: false, error, clean };
  }
}

/** After a failure: the record goes, unless something of the attachment could not be removed and DEL has to. */
export function abandon(context: CallContext, { attachment, begun }: Draft, clean: boolean): void {
  // What an ADD that died had made is not part of what this one undid.
  const departing = begun || !clean ? 'attachment' : 'shared objects';
  try {
    // The last DEL of others may have left to this attachment what they shared.
    detach(context, attachment, departing);
  } catch (error) {
    context.log(
      'error',
      `${departing} of ${formatKey(attachment.key)} could not be removed: ${messageOf(error)}`,
    );
    if (departing === 'attachment') return;
  }
  context.state.remove(attachment.key);
}

/** Refuses a port of this host that leads to another pod, at the same address or where one of the two means every address. */
export function refuseTakenPorts({ state }: CallContext, { key, hostPorts }: Attachment): void {
  for (const each of hostPorts?.ports ?? []) {
    const words = portWords(each);
    for (const { object, user } of state.othersUsing(words, key)) {
      const at = object.slice(words.length);
      if (at !== '*' && each.hostIp !== null && at !== each.hostIp) continue;
      throw new CniError(
        CNI_ERROR.taken,
        `host port ${formatPort(each)} is taken by ${formatKey(user)}`,
        at === '*' ? 'at every address of this host' : `at ${at}`,
      );
    }
  }
}

/**
 * Writes the record of a draft. What an ADD that died made for another configuration is removed before,
 * while its record still tells of it.
 */
export function reserve(context: CallContext, choose: () => Draft): Draft {
  let removed: Attachment | undefined;
  for (;;) {
    const gone = removed;
    const { draft, isWritten } = context.state.transact(() => {
      const chosen = choose();
      const { attachment, begun } = chosen;
      // What another plugin has given to an ADD that died, or has not yet, only that plugin knows.
      const goesOn = begun?.ipam === undefined && sameJson(begun, attachment);
      refuseTakenPorts(context, attachment);
      if (begun && !goesOn && !(gone && sameJson(begun, gone)))
        return { draft: chosen, isWritten: false };
      context.state.put(attachment, context.worker, usesOf(attachment));
      return { draft: chosen, isWritten: true };
    });
    if (isWritten) return draft;
    removed = context.exclusively(() => {
      // Another ADD of the same attachment may have been faster.
      const record = context.state.find(draft.attachment.key);
      if (!record) return undefined;
      refuseExisting(context, record);
      detach(context, record.attachment);
      return record.attachment;
    });
    if (removed) releaseDelegated(context, removed, undefined);
  }
}
