import { applyPlan, type Retreat } from '../../backends/apply.ts';
import type { Scope } from '../../backends/backend.ts';
import { sameJson } from '../../model/canonical.ts';
import { type DesiredHost, desiredOf } from '../../model/desired.ts';
import { HOST_NETNS, type Host, findLink, findNetns, getLink } from '../../model/host.ts';
import { familyOf } from '../../model/ip.ts';
import { IP6_MIN_MTU_BYTES } from '../../model/link.ts';
import { formatFailure } from '../../model/message.ts';
import { type Plan, planTo } from '../../model/plan.ts';
import { formatPrefixedIp } from '../../model/prefix.ts';
import { type Attachment, formatKey, makeAttachment } from '../attachment.ts';
import type { Config } from '../cni/config.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { CniVersion, Request } from '../cni/request.ts';
import { type CniResult, resultOf } from '../cni/result.ts';
import { allocate, fits } from '../ipam/allocate.ts';
import { rangeSetsOf } from '../ipam/ranges.ts';
import {
  attachScope,
  attached,
  conflictingAddresses,
  gatewayAddresses,
  isOwnEnd,
} from '../network.ts';
import type { AttachmentRecord, SharedObject } from '../state.ts';
import type { CallContext } from './context.ts';
import { detach } from './del.ts';
import { logReport } from './report.ts';
import { usesOf } from './usage.ts';

/** The MTU of an Ethernet link, for a host without a default route. */
const ETHERNET_MTU_BYTES = 1500;

/** The configured MTU, or that of the link that leads out of the host. */
function mtuOf(context: CallContext, config: Config): number {
  if (config.mtu !== 0) return config.mtu;
  const observed = context.backend.observe({
    [HOST_NETNS]: { links: [], routes: 'default', sysctls: [], nftables: [] },
  });
  const device = findNetns(observed, HOST_NETNS)?.routes[0]?.device ?? undefined;
  const link =
    device === undefined ? undefined : findLink(observed, { netns: HOST_NETNS, ifname: device });
  return link?.mtuBytes ?? ETHERNET_MTU_BYTES;
}

/** An attachment that may be made, and as an ADD that died has begun it. */
interface Draft {
  readonly attachment: Attachment;
  readonly begun: Attachment | undefined;
}

function refuseExisting(context: CallContext, record: AttachmentRecord): void {
  const name = formatKey(record.attachment.key);
  if (record.state === 'finished') {
    const addresses = record.attachment.addresses.map(formatPrefixedIp).join(', ');
    throw new CniError(
      CNI_ERROR.taken,
      `attachment ${name} already exists`,
      `it has ${addresses} on ${record.attachment.hostIfname}; DEL has to come first`,
    );
  }
  if (context.isAlive(record.worker)) {
    throw new CniError(
      CNI_ERROR.tryAgainLater,
      `attachment ${name} is being added by process ${record.worker.pid}`,
    );
  }
}

/** Chooses the addresses and names of an attachment; those of an ADD that died are taken over where they still fit. */
function draftAttachment(
  context: CallContext,
  request: Request,
  config: Config,
  mtuBytes: number,
): Draft {
  const record = context.state.find(request.key);
  if (record) refuseExisting(context, record);
  const sets = rangeSetsOf(config);
  const addresses =
    record && fits(sets, record.attachment.addresses)
      ? record.attachment.addresses
      : allocate(sets, context.state.addressBook(request.key.network, request.key));
  if (mtuBytes < IP6_MIN_MTU_BYTES && addresses.some(({ ip }) => familyOf(ip) === 6)) {
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `an MTU of ${mtuBytes} is too small for IPv6, which needs ${IP6_MIN_MTU_BYTES}`,
    );
  }
  return {
    attachment: makeAttachment(
      context.identity,
      request.key,
      request.netns,
      config,
      mtuBytes,
      addresses,
    ),
    begun: record?.attachment,
  };
}

/** Refuses to take a name from a link that is somebody else's. */
export function checkNames(attachment: Attachment, observed: Host): void {
  const { bridge, hostIfname } = attachment;
  const shared = findLink(observed, { netns: HOST_NETNS, ifname: bridge });
  if (shared && shared.kind !== 'bridge') {
    throw new CniError(
      CNI_ERROR.taken,
      `link "${bridge}" already exists but is not a bridge`,
      `it is a ${shared.kind === 'device' ? shared.deviceKind || 'device' : shared.kind}`,
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
  const own =
    end?.kind === 'veth' &&
    end.peer?.netns === HOST_NETNS &&
    end.peer.ifname === attachment.hostIfname;
  if (end && !(healing && own)) {
    throw new CniError(
      CNI_ERROR.taken,
      `link "${key.ifname}" already exists in netns "${netns}"`,
      `it is a ${end.kind}; the attachment needs the name`,
    );
  }
  checkNames(attachment, observed);
  const [conflict] = attachment.forceAddress ? [] : conflictingAddresses(attachment, observed);
  if (conflict) {
    const wanted = gatewayAddresses(attachment).map(formatPrefixedIp).join(', ');
    throw new CniError(
      CNI_ERROR.taken,
      `bridge "${bridge}" already has address ${formatPrefixedIp(conflict)}, which conflicts with ${wanted}`,
      'with "forceAddress": true it is replaced',
    );
  }
}

/** The plan of an ADD, from what is there now. */
function planAttachment(context: CallContext, { attachment, begun }: Draft): Plan {
  const observed = context.backend.observe(attachScope(attachment));
  checkObserved(attachment, begun !== undefined, observed);
  const planning = planTo(observed, attached(attachment, observed));
  if (planning.ok) return planning.plan;
  throw new CniError(
    CNI_ERROR.kernel,
    formatFailure(planning.op, planning.fault),
    'the plan was not begun',
  );
}

/** Which links the scope reads by name, for a retreat that must know what was missing. */
function namedLinks(scope: Scope): Record<string, readonly string[] | 'all'> {
  return Object.fromEntries(Object.entries(scope).map(([name, part]) => [name, part.links]));
}

/** A wish without routes where none were read: that none were seen does not mean that there were none. */
function withoutUnread(wish: DesiredHost, scope: Scope): DesiredHost {
  return Object.fromEntries(
    Object.entries(wish).map(([name, part]) => {
      if (part === 'absent' || scope[name]?.routes === 'all') return [name, part];
      const { routes: _unread, ...rest } = part;
      return [name, rest];
    }),
  );
}

/** Back to what there was before a plan of this attachment. */
export function retreatOf(attachment: Attachment, plan: Plan): Retreat {
  const scope = attachScope(attachment);
  return { scope, wish: withoutUnread(desiredOf(plan.before, namedLinks(scope)), scope) };
}

/** Addresses that the plan puts on a bridge which is somebody else's: nothing there would say that they are ours. */
function claimsOf(attachment: Attachment, plan: Plan): SharedObject[] {
  return plan.ops.flatMap((op) =>
    op.op === 'address.add' && op.netns === HOST_NETNS && op.ifname === attachment.bridge
      ? [`gateway ${attachment.bridge} ${op.address.ip}` as const]
      : [],
  );
}

/** May refuse a plan before it is begun, by throwing. */
export type Verify = (plan: Plan) => void;

/** Makes the network of a draft whose record is written, or leaves nothing of it. */
function attach(context: CallContext, draft: Draft, verify: Verify): Plan {
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
    if (!report.failed) return plan;
    const { op, fault } = report.failed;
    throw new CniError(
      CNI_ERROR.kernel,
      formatFailure(op, fault),
      clean ? 'everything was undone' : 'not everything could be undone: DEL will',
    );
  } catch (error) {
    if (clean) for (const object of claims) context.state.unclaim(object);
    abandon(context, draft, clean);
    throw error;
  }
}

/** After a failure: the record goes, unless something of the attachment could not be removed and DEL has to. */
function abandon(context: CallContext, { attachment, begun }: Draft, clean: boolean): void {
  // What an ADD that died had made is not part of what this one undid.
  const departing = begun || !clean ? 'attachment' : 'shared objects';
  try {
    // The last DEL of others may have left to this attachment what they shared.
    detach(context, attachment, departing);
  } catch (error) {
    context.log(
      'error',
      `${departing} of ${formatKey(attachment.key)} could not be removed: ${error instanceof Error ? error.message : String(error)}`,
    );
    if (departing === 'attachment') return;
  }
  context.state.remove(attachment.key);
}

/** What ADD did: the result to print, and what is left to do when the runtime has it, or has not got it. */
export interface Added {
  readonly result: CniResult;
  readonly plan: Plan;
  /** To be called when the result is written. */
  readonly finish: () => void;
  /** To be called when it could not be written: nobody knows of the attachment then. */
  readonly cancel: () => void;
}

/** Refuses the netns that the plugin itself is in: the runtime must have meant another. */
export function checkNetns(context: CallContext, netns: string): void {
  // `host` is what the model calls it.
  if (netns === HOST_NETNS || context.isOwnNetns(netns)) {
    throw new CniError(
      CNI_ERROR.invalidNetns,
      "plugin's netns and netns from CNI_NETNS should not be the same",
      netns,
    );
  }
}

/** Makes the network of a draft whose record is written. */
function addRecorded(
  context: CallContext,
  draft: Draft,
  cniVersion: CniVersion,
  verify: Verify,
): Added {
  const { attachment } = draft;
  const { key } = attachment;
  for (const address of attachment.addresses) {
    context.log('info', `Allocated IP ${formatPrefixedIp(address)}`, {
      container: key.containerId,
      network: key.network,
    });
  }
  let entered = false;
  let plan: Plan;
  try {
    plan = context.exclusively(() => {
      entered = true;
      return attach(context, draft, verify);
    });
  } catch (error) {
    // Without the lock nothing was made, so that nothing holds the addresses but the record.
    if (!entered && !draft.begun) context.state.remove(key);
    throw error;
  }
  const bridge = getLink(plan.after, { netns: HOST_NETNS, ifname: attachment.bridge });
  return {
    plan,
    result: resultOf(attachment, bridge.mac ?? attachment.bridgeMac, cniVersion),
    finish: () => context.state.finish(key),
    cancel: () => context.exclusively(() => abandon(context, draft, false)),
  };
}

/**
 * Writes the record of a draft. What an ADD that died made for another configuration is removed before,
 * while its record still tells of it.
 */
function reserve(context: CallContext, choose: () => Draft): Draft {
  let removed: Attachment | undefined;
  for (;;) {
    const gone = removed;
    const { draft, isWritten } = context.state.transact(() => {
      const chosen = choose();
      const { attachment, begun } = chosen;
      if (begun && !sameJson(begun, attachment) && !(gone && sameJson(begun, gone)))
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
  }
}

/** ADD: allocates, records, plans and applies. Throws the error to answer; then neither address nor link is left. */
export function add(context: CallContext, request: Request, config: Config): Added {
  checkNetns(context, request.netns);
  const mtuBytes = mtuOf(context, config);
  const draft = reserve(context, () => draftAttachment(context, request, config, mtuBytes));
  return addRecorded(context, draft, request.cniVersion, () => undefined);
}

/** ADD of an attachment whose addresses were chosen before: they must still be free. */
export function addDrafted(
  context: CallContext,
  attachment: Attachment,
  cniVersion: CniVersion,
  verify: Verify,
): Added {
  checkNetns(context, attachment.netns);
  const { key } = attachment;
  const draft = reserve(context, () => {
    const record = context.state.find(key);
    if (record) refuseExisting(context, record);
    for (const { ip } of attachment.addresses) {
      const owner = context.state.ownerOf(key.network, ip);
      if (owner && formatKey(owner) !== formatKey(key))
        throw new CniError(
          CNI_ERROR.drift,
          `address ${ip} is taken by now`,
          `by ${formatKey(owner)}`,
        );
    }
    return { attachment, begun: record?.attachment };
  });
  return addRecorded(context, draft, cniVersion, verify);
}

/** What ADD would do, without reserving or changing anything. Throws what ADD would throw before it touched the kernel. */
export function planAdd(
  context: CallContext,
  request: Request,
  config: Config,
): { readonly plan: Plan; readonly attachment: Attachment; readonly scope: Scope } {
  checkNetns(context, request.netns);
  const draft = draftAttachment(context, request, config, mtuOf(context, config));
  return {
    plan: planAttachment(context, draft),
    attachment: draft.attachment,
    scope: attachScope(draft.attachment),
  };
}
