import type { Scope } from '../../backends/backend.ts';
import { type Finding, check, formatFinding } from '../../model/check.ts';
import type { DesiredHost, DesiredLink } from '../../model/desired.ts';
import { type Host, findNetns, getNetns } from '../../model/host.ts';
import { findMac } from '../../model/mac.ts';
import { formatFailure } from '../../model/message.ts';
import { type Plan, planTo } from '../../model/plan.ts';
import { formatPrefixedIp } from '../../model/prefix.ts';
import type { Route } from '../../model/route.ts';
import { type Attachment, formatKey } from '../attachment.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { AttachmentKey, Request } from '../cni/request.ts';
import { type CniResult, addressesIn, parseResult } from '../cni/result.ts';
import { attachScope, attached } from '../network.ts';
import { checkNames } from './attach.ts';
import type { CallContext } from './context.ts';
import { warnOfDrops } from './drops.ts';

function getAttachment(context: CallContext, key: AttachmentKey): Attachment {
  const record = context.state.find(key);
  if (record) return record.attachment;
  throw new CniError(
    CNI_ERROR.unknownContainer,
    `there is no attachment ${formatKey(key)}`,
    'ADD was never called for it, or DEL has removed it',
  );
}

/** What later plugins of the chain may have changed, as far as there is evidence of it. */
interface Later {
  /** The final result of ADD, undefined when nobody gave it. */
  readonly result: CniResult | undefined;
  /** The attributes of the pod's link that the reference's tuning plugin has changed, by its own names. */
  readonly tuned: ReadonlySet<string>;
  /** The configuration, as the runtime gave it to CHECK. */
  readonly config: Request['config'];
}

const NOTHING_LATER: Later = { result: undefined, tuned: new Set(), config: {} };

/** Where the reference's tuning plugin notes what it has changed, for its DEL (its `dataDir`). */
function tunedIn(context: CallContext, { containerId, ifname }: AttachmentKey): Set<string> {
  const text = context.readText(`/run/cni/tuning/${containerId}_${ifname}.json`);
  if (text === undefined) return new Set();
  try {
    return new Set(Object.keys(JSON.parse(text) as object));
  } catch {
    return new Set();
  }
}

/** The pod's link without attributes that a later plugin may have changed. */
function tolerantLink(
  wanted: DesiredLink,
  { key: { ifname } }: Attachment,
  { result, tuned }: Later,
): DesiredLink {
  if (wanted === 'absent') return wanted;
  const { mac, mtuBytes, ...rest } = wanted;
  const given = result?.interfaces.find(
    ({ name, sandbox }) => name === ifname && (sandbox ?? '') !== '',
  );
  const givenMac = given?.mac === undefined ? undefined : findMac(given.mac);
  const wantedMac = givenMac ?? (tuned.has('mac') ? undefined : mac);
  const wantedMtu = tuned.has('mtu') ? undefined : (given?.mtu ?? mtuBytes);
  return {
    ...rest,
    ...(wantedMac === undefined ? {} : { mac: wantedMac }),
    ...(wantedMtu === undefined ? {} : { mtuBytes: wantedMtu }),
  };
}

/** Has somebody moved the route into a table of its own, as the reference's sbr does? */
function isMoved(route: Route, routes: readonly Route[]): boolean {
  return routes.some(
    (have) =>
      have.table !== route.table &&
      have.destination === route.destination &&
      have.gateway === route.gateway &&
      have.device === route.device,
  );
}

/** What has to hold of an attachment while later plugins may have changed what is theirs to change. */
function tolerated(attachment: Attachment, observed: Host, later: Later): DesiredHost {
  const desired = attached(attachment, observed);
  const { netns, key } = attachment;
  const pod = desired[netns];
  const wantedLink = pod === undefined || pod === 'absent' ? undefined : pod.links?.[key.ifname];
  if (pod === undefined || pod === 'absent' || wantedLink === undefined) return desired;
  const here = getNetns(observed, netns).routes;
  const present = (pod.routes?.present ?? []).filter((route) => !isMoved(route, here));
  return {
    ...desired,
    [netns]: {
      ...pod,
      links: { ...pod.links, [key.ifname]: tolerantLink(wantedLink, attachment, later) },
      routes: { present, others: 'keep' },
    },
  };
}

/** An attachment of a state file that was rebuilt, with what the host does not tell: the pod's netns and what is chosen there, and which gateway is whose, or how long prefixes are. */
function completed(
  attachment: Attachment,
  netns: string,
  { result, config }: Pick<Later, 'result' | 'config'>,
): Attachment {
  if (attachment.netns !== '') return attachment;
  const given = result ? addressesIn(result, attachment.key.ifname) : [];
  const addresses = attachment.addresses.map((address) => {
    const same = given.find(({ ip }) => ip === address.ip);
    if (!same) return address;
    if (attachment.mode === 'ptp') return { ...address, gateway: same.gateway ?? address.gateway };
    return { ...address, prefixLength: same.prefixLength };
  });
  return {
    ...attachment,
    netns,
    addresses,
    // The gateway in its subnet may be that of another network on the bridge.
    ...(result && config['isGateway'] !== true && config['isDefaultGateway'] !== true
      ? { gateway: false }
      : {}),
    ...(config['enabledad'] === true ? { dad: true as const } : {}),
    ...(config['disableContainerInterface'] === true ? { podDown: true as const } : {}),
  };
}

/** Everything about an attachment that is not as ADD left it, or later plugins may have changed it. */
export function findings(
  context: CallContext,
  key: AttachmentKey,
  later: Later = NOTHING_LATER,
  netns = '',
): Finding[] {
  const recorded = getAttachment(context, key);
  const attachment = completed(recorded, netns, later);
  const observed = context.backend.observe(attachScope(attachment));
  if (!findNetns(observed, attachment.netns)) {
    return [
      {
        netns: attachment.netns,
        text: 'it does not exist or is not a network namespace',
        repair: [],
      },
    ];
  }
  return check(observed, tolerated(attachment, observed, later));
}

/** What would bring an attachment back to what ADD left; CHECK itself mends nothing. */
export function planRepair(
  context: CallContext,
  key: AttachmentKey,
): { readonly plan: Plan; readonly attachment: Attachment; readonly scope: Scope } {
  const attachment = getAttachment(context, key);
  const scope = attachScope(attachment);
  const observed = context.backend.observe(scope);
  if (!findNetns(observed, attachment.netns)) {
    throw new CniError(
      CNI_ERROR.drift,
      `netns "${attachment.netns}" does not exist or is not a network namespace`,
    );
  }
  checkNames(attachment, observed);
  const planning = planTo(observed, attached(attachment, observed));
  if (!planning.ok)
    throw new CniError(CNI_ERROR.kernel, formatFailure(planning.op, planning.fault));
  return { plan: planning.plan, attachment, scope };
}

/** Does the result the runtime keeps agree with the record? Plugins behind ours may have added addresses, but not taken any. */
function checkPrevResult(context: CallContext, request: Request, result: CniResult): Finding[] {
  const { key, config } = request;
  const given = addressesIn(result, key.ifname).map(formatPrefixedIp);
  const { addresses, netns } = completed(getAttachment(context, key), request.netns, {
    result,
    config,
  });
  return addresses
    .map(formatPrefixedIp)
    .filter((address) => !given.includes(address))
    .map((address) => ({
      netns,
      text: `address ${address} of the attachment is not in prevResult`,
      repair: [],
    }));
}

/** A finding with what would mend it, as lines of a diff. */
function formatDiff(finding: Finding): string {
  return [formatFinding(finding), ...finding.repair.map((line) => `  + ${line}`)].join('\n');
}

/** CHECK: throws an error of code 103 that names every difference, or returns when there is none. */
export function checkCall(context: CallContext, request: Request): void {
  const { config, key } = request;
  const { prevResult } = config;
  if (prevResult === undefined || prevResult === null)
    throw new CniError(CNI_ERROR.invalidConfig, 'Required prevResult missing');
  const result = parseResult(prevResult, 'prevResult');
  const { ipam, netns } = getAttachment(context, key);
  const later: Later = { result, tuned: tunedIn(context, key), config };
  const all = [
    ...checkPrevResult(context, request, result),
    ...findings(context, key, later, request.netns),
  ];
  const [first] = all;
  if (first) {
    const count = all.length === 1 ? '1 difference' : `${all.length} differences`;
    throw new CniError(
      CNI_ERROR.drift,
      `attachment ${formatKey(key)} has ${count}: ${formatFinding(first)}`,
      all.map(formatDiff).join('\n'),
    );
  }
  warnOfDrops(context, getAttachment(context, key));
  if (ipam) context.delegate({ type: ipam.type, verb: 'CHECK', stdin: request.stdin, key, netns });
}
