/** ADD: attaches a pod to a network. */
import type { Scope } from '../../backends/backend.ts';
import { HOST_NETNS, findLink, getLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { type Ip, familyOf } from '../../model/ip.ts';
import type { Mac } from '../../model/mac.ts';
import { type Plan, joinPlans } from '../../model/plan.ts';
import { formatPrefixedIp } from '../../model/prefix.ts';
import { type Attachment, formatKey } from '../attachment.ts';
import type { Config } from '../cni/config.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { Request } from '../cni/request.ts';
import { type CniResult, type SharedMacs, parseResult, resultOf } from '../cni/result.ts';
import { MissingPluginError } from '../ipam/delegate.ts';
import { attachScope } from '../network.ts';
import { podEnd } from '../pod.ts';
import { gatewayRef } from '../vlan.ts';
import {
  type Verify,
  abandon,
  attach,
  planAttachment,
  refuseTakenPorts,
  reserve,
} from './attach.ts';
import type { CallContext } from './context.ts';
import { releaseDelegated } from './delegated.ts';
import { detach } from './detach.ts';
import { type Draft, completeDraft, draftAttachment, mtuOf, refuseExisting } from './draft.ts';
import { checkNetns } from './netns.ts';
import { usesOf } from './usage.ts';

/** What ADD did: the result to print, and what is left to do when the runtime has it, or has not got it. */
export interface Added {
  readonly result: CniResult;
  readonly plan: Plan;
  /** To be called when the result is written. */
  readonly finish: () => void;
  /** To be called when it could not be written: nobody knows of the attachment then. */
  readonly cancel: () => void;
}

function logAddresses(context: CallContext, { addresses, key }: Attachment): void {
  for (const address of addresses) {
    context.log('info', `Allocated IP ${formatPrefixedIp(address)}`, {
      container: key.containerId,
      network: key.network,
    });
  }
}

/** Makes the network of a draft whose record is written; after a failure neither is left. */
function attachOrAbandon(context: CallContext, draft: Draft, verify: Verify): Plan {
  let entered = false;
  try {
    return context.exclusively(() => {
      entered = true;
      const outcome = attach(context, draft, verify);
      if (outcome.ok) return outcome.plan;
      abandon(context, draft, outcome.clean);
      throw outcome.error;
    });
  } catch (error) {
    // Without the lock nothing was made, so that nothing holds the addresses but the record.
    if (!entered && !draft.begun) context.state.remove(draft.attachment.key);
    throw error;
  }
}

/** How long the kernel may take to look for duplicates: the reference waits as long (SettleAddresses). */
const DAD_TIMEOUT_MS = 5000;
const DAD_PAUSE_MS = 20;

/** Waits until the kernel has found no other link with the pod's IPv6 addresses. */
function awaitDad(context: CallContext, attachment: Attachment): void {
  const { netns, key, addresses } = attachment;
  if (!attachment.dad || !addresses.some(({ ip }) => familyOf(ip) === 6)) return;
  const scope: Scope = {
    [netns]: { links: [key.ifname], routes: 'none', sysctls: [], nftables: [] },
  };
  for (let waitedMs = 0; ; waitedMs += DAD_PAUSE_MS) {
    const link = findLink(context.backend.observe(scope), podEnd(attachment));
    const waiting = (link?.addresses ?? []).filter(
      ({ ip, tentative }) => tentative && addresses.some((address) => address.ip === ip),
    );
    const [first] = waiting;
    if (!first) return;
    if (waitedMs >= DAD_TIMEOUT_MS)
      throw new CniError(
        CNI_ERROR.kernel,
        `address ${formatPrefixedIp(first)} of link "${key.ifname}" in netns "${netns}" is still tentative after ${DAD_TIMEOUT_MS / 1000} s`,
        'another link has it, or the link has no carrier',
      );
    context.pause(DAD_PAUSE_MS);
  }
}

function answer(context: CallContext, draft: Draft, plan: Plan): Added {
  const { attachment } = draft;
  const macOf = (ifname: Ifname): Mac | undefined =>
    getLink(plan.after, { netns: HOST_NETNS, ifname }).mac ?? undefined;
  const shared: SharedMacs =
    attachment.mode === 'ptp'
      ? {}
      : { bridge: macOf(attachment.bridge), vlanGateway: macOf(gatewayRef(attachment).ifname) };
  return {
    plan,
    result: resultOf(attachment, shared),
    finish: () => context.state.finish(attachment.key),
    cancel: () => takeBack(context, draft),
  };
}

/** Takes back an attachment that was made, whoever gave its addresses. */
function takeBack(context: CallContext, draft: Draft): void {
  const { attachment } = draft;
  let isReleased = true;
  try {
    releaseDelegated(context, attachment, undefined);
  } catch (error) {
    isReleased = false;
    context.log(
      'error',
      `addresses of ${formatKey(attachment.key)} were not taken back: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  context.exclusively(() => {
    if (isReleased) abandon(context, draft, false);
    // The record stays for DEL, which asks the other plugin again.
    else detach(context, attachment);
  });
}

/** Makes the network of a draft whose record is written. */
function addRecorded(context: CallContext, draft: Draft, verify: Verify): Added {
  logAddresses(context, draft.attachment);
  const plan = attachOrAbandon(context, draft, verify);
  try {
    awaitDad(context, draft.attachment);
  } catch (error) {
    takeBack(context, draft);
    throw error;
  }
  return answer(context, draft, plan);
}

/** An address of the attachment that another one has, with its owner. */
function takenAddress(
  context: CallContext,
  { key, addresses }: Attachment,
): { readonly ip: Ip; readonly owner: string } | undefined {
  for (const { ip } of addresses) {
    const owner = context.state.ownerOf(key.network, ip);
    if (owner && formatKey(owner) !== formatKey(key)) return { ip, owner: formatKey(owner) };
  }
  return undefined;
}

/** How long who has given an address back may take to go: the plugin may have handed it out again by then. */
const DEPARTURE_TIMEOUT_MS = 1000;
const DEPARTURE_PAUSE_MS = 10;

/** Writes the record of an attachment with the addresses that another plugin has given it; throws when others keep them. */
function recordGiven(context: CallContext, attachment: Attachment): void {
  for (let waitedMs = 0; ; waitedMs += DEPARTURE_PAUSE_MS) {
    const taken = context.state.transact(() => {
      const found = takenAddress(context, attachment);
      if (!found) refuseTakenPorts(context, attachment);
      if (!found) context.state.put(attachment, context.worker, usesOf(attachment));
      return found;
    });
    if (!taken) return;
    if (waitedMs >= DEPARTURE_TIMEOUT_MS)
      throw new CniError(
        CNI_ERROR.taken,
        `address ${taken.ip} of IPAM plugin ${attachment.ipam?.type ?? ''} is taken`,
        `by ${taken.owner}`,
      );
    context.pause(DEPARTURE_PAUSE_MS);
  }
}

/**
 * Makes the link, has another plugin give the addresses, and puts them on it: two plans under one record. A failure undoes
 * the second, has the plugin take its addresses back, and undoes the first.
 */
function addDelegated(
  context: CallContext,
  request: Request,
  config: Config,
  linked: Draft,
): Added {
  const { key, netns, ipam } = linked.attachment;
  const first = attachOrAbandon(context, linked, () => undefined);
  let draft: Draft = { attachment: linked.attachment, begun: linked.attachment };
  try {
    const given = context.delegate({
      type: ipam?.type ?? '',
      verb: 'ADD',
      stdin: request.stdin,
      key,
      netns,
    });
    const completed = completeDraft(
      context,
      request,
      config,
      draft,
      parseResult(given, `the answer of IPAM plugin ${ipam?.type ?? ''}`),
    );
    recordGiven(context, completed.attachment);
    // Not before: what another attachment has is not to be taken back.
    draft = completed;
    logAddresses(context, draft.attachment);
    const outcome = context.exclusively(() => attach(context, draft, () => undefined));
    if (!outcome.ok) throw outcome.error;
    awaitDad(context, draft.attachment);
    return answer(context, draft, joinPlans(first, outcome.plan));
  } catch (error) {
    // A plugin that is not there has given nothing, and could not take it back.
    if (error instanceof MissingPluginError)
      context.exclusively(() => abandon(context, draft, false));
    else takeBack(context, draft);
    throw error;
  }
}

/** ADD: allocates, records, plans and applies. Throws the error to answer; then neither address nor link is left. */
export function add(context: CallContext, request: Request, config: Config): Added {
  checkNetns(context, request.netns);
  const mtuBytes = mtuOf(context, config);
  const draft = reserve(context, () => draftAttachment(context, request, config, mtuBytes));
  return draft.attachment.ipam
    ? addDelegated(context, request, config, draft)
    : addRecorded(context, draft, () => undefined);
}

/** ADD of an attachment whose addresses were chosen before: they must still be free. */
export function addDrafted(context: CallContext, attachment: Attachment, verify: Verify): Added {
  checkNetns(context, attachment.netns);
  const { key } = attachment;
  const draft = reserve(context, () => {
    const record = context.state.find(key);
    if (record) refuseExisting(context, record);
    const taken = takenAddress(context, attachment);
    if (taken)
      throw new CniError(
        CNI_ERROR.drift,
        `address ${taken.ip} is taken by now`,
        `by ${taken.owner}`,
      );
    return { attachment, begun: record?.attachment };
  });
  return addRecorded(context, draft, verify);
}

/** What ADD would do, without reserving or changing anything, or asking another plugin. Throws what ADD would throw before it touched the kernel. */
export function planAdd(
  context: CallContext,
  request: Request,
  config: Config,
): { readonly plan: Plan; readonly attachment: Attachment; readonly scope: Scope } {
  checkNetns(context, request.netns);
  const draft = draftAttachment(context, request, config, mtuOf(context, config));
  refuseTakenPorts(context, draft.attachment);
  return {
    plan: planAttachment(context, draft),
    attachment: draft.attachment,
    scope: attachScope(draft.attachment),
  };
}
