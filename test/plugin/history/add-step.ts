/** ADD in a history: what it may answer, and what has to hold when it has succeeded, failed or died. */
import assert from 'node:assert/strict';
import { HOST_NETNS, type Host, findLink, findNetns } from '../../../model/host.ts';
import type { Ifname } from '../../../model/ifname.ts';
import { type LinkRef, holdsIpv6 } from '../../../model/link.ts';
import { type Attachment, formatKey } from '../../../plugin/attachment.ts';
import { type Added, add } from '../../../plugin/call/add.ts';
import { findings, planRepair } from '../../../plugin/call/check.ts';
import { parseConfig } from '../../../plugin/cni/config.ts';
import { CNI_ERROR, CniError } from '../../../plugin/cni/error.ts';
import type { Request } from '../../../plugin/cni/request.ts';
import { attached } from '../../../plugin/network.ts';
import type { RawConfig } from '../../arbitraries/configuration.ts';
import { plainState } from '../../state.ts';
import { requestFor } from '../machine.ts';
import { call } from './call.ts';
import { checkWith } from './check-step.ts';
import { isExhausted, isResting } from './exhaustion.ts';
import { withoutLasting } from './foreign.ts';
import type { Entry } from './ledger.ts';
import {
  type Node,
  podNetns,
  rawOf,
  containerOf,
  attachmentOf,
  whole,
  settle,
  linesOf,
} from './node.ts';
import { assertPromise } from './promise.ts';
import { lookAtPlan, isStateOp } from './sampled-plan.ts';
import { statusStep } from './status-step.ts';
import type { Step } from './step.ts';
import { count } from './tally.ts';

/** Fails when an address comes again sooner than the network allows. */
function assertRested(node: Node, { key, addresses }: Attachment, raw: RawConfig): void {
  for (const { ip } of addresses)
    assert(!isResting(node, raw, ip), `${ip} of ${formatKey(key)} is handed out again too soon`);
}

function bridgeOf(raw: RawConfig): LinkRef {
  return { netns: HOST_NETNS, ifname: String(raw['bridge']) as Ifname };
}

/** What the error of an ADD says when its undoing was refused too (plugin/call/attach.ts). */
const NOT_UNDONE = 'not everything could be undone: DEL will';

/** Reasons for which an ADD may be refused without anything having gone wrong. */
function isRefusable(node: Node, raw: RawConfig, request: Request, error: unknown): boolean {
  if (!(error instanceof CniError)) return false;
  const host = node.machine.backend.host();
  const netns = findNetns(host, request.netns);
  const text = error.message;
  switch (error.code) {
    case CNI_ERROR.invalidEnvironment:
      return netns === undefined;
    case CNI_ERROR.exhausted:
      return isExhausted(node, raw);
    case CNI_ERROR.taken:
      return (
        text.includes('which conflicts with') ||
        text.startsWith('host port ') ||
        text.includes('does not filter VLANs') ||
        // Somebody has given the name to a link of his.
        (text.endsWith('already exists but is not a bridge') &&
          findLink(node.shadow, bridgeOf(raw)) !== undefined) ||
        (text.startsWith('link "') &&
          findLink(host, { netns: request.netns, ifname: request.key.ifname }) !== undefined)
      );
    case CNI_ERROR.kernel:
      // Two attachments of a pod want one and the same route; the second cannot have it.
      if (/"ip (-6 )?route add /.test(text))
        return text.endsWith('EEXIST') && Object.keys(netns?.links ?? {}).length > 1;
      return isNameTaken(host, text) || isTooSmall(host, raw, text);
    default:
      return false;
  }
}

/** Was a link refused because somebody gave its name to another one, as an alternative name? */
function isNameTaken(host: Host, text: string): boolean {
  if (!text.endsWith('EEXIST')) return false;
  const names = [...text.matchAll(/(?:"ip link add|peer name) (\S+)/g)].map(([, name]) => name);
  return Object.values(host.netns).some(({ links }) =>
    Object.values(links).some(({ altnames = [] }) => altnames.some((name) => names.includes(name))),
  );
}

/** Has somebody made the bridge so small, by a port of his own, that it has no IPv6 (K-4.4)? */
function isTooSmall(host: Host, raw: RawConfig, text: string): boolean {
  const bridge = findLink(host, bridgeOf(raw));
  return /"ip address add \S+:.*EINVAL$/.test(text) && bridge !== undefined && !holdsIpv6(bridge);
}

/** What holds of an ADD that has just succeeded; `begun` is what a dead one had begun. */
function assertAdded(
  node: Node,
  entry: Entry,
  { plan, result }: Added,
  begun: Attachment | undefined,
): void {
  const context = node.machine.start();
  const attachment = attachmentOf(node, entry);
  assert.deepEqual(findings(context, attachment.key), [], 'CHECK right after ADD finds something');
  checkWith(node, entry, context);
  assert.deepEqual(planRepair(context, attachment.key).plan.ops, [], 'a second plan is not empty');
  if (begun && begun.netns === attachment.netns)
    assert.deepEqual(
      attachment.addresses.map(({ ip }) => ip),
      begun.addresses.map(({ ip }) => ip),
      'an ADD that goes on has other addresses',
    );
  else assertRested(node, attachment, rawOf(node, entry.network));
  assertPromise(node.machine.backend.host(), rawOf(node, entry.network), attachment, result);
  const ops = plan.ops.filter(isStateOp);
  lookAtPlan(node, { before: plan.before, desired: attached(attachment, plan.before) }, ops);
}

/** An ADD. Answers what came of it. */
export function addStep(node: Node, step: Extract<Step, { do: 'ADD' }>): string {
  const { pod, ifname, fate } = step;
  const network = step.network % node.networks.length;
  const raw = rawOf(node, network);
  const netns = podNetns(pod);
  const request = requestFor('ADD', raw, pod, {
    containerId: containerOf(node, pod),
    ifname,
    netns,
  });
  const name = formatKey(request.key);
  const known = node.ledger.get(name);
  const before = whole(node);
  const host = node.machine.backend.host();
  const recorded = node.machine.state.find(request.key);
  // An ADD mends what it shares with others, and that stays mended when it is taken back.
  const isSound =
    fate.kind === 'fine' ||
    [...node.ledger.values()].every((other) => linesOf(node, other).length === 0);
  const end = call(node, fate, (context) => {
    const added = add(context, request, parseConfig(request.config));
    added.finish();
    return added;
  });
  const entry: Entry = {
    key: request.key,
    pod,
    network,
    netns,
    state: 'unsure',
    result: undefined,
  };
  if (end.value) {
    assert(recorded?.state !== 'finished', 'an attachment was added twice');
    const made: Entry = { ...entry, state: 'attached', result: end.value.result };
    node.ledger.set(name, made);
    assertAdded(node, made, end.value, recorded?.attachment);
    count(node.tally, 'ADD');
    const ips = end.value.result.ips.map(({ address }) => address).join(' ');
    return `${ips || 'no address'}, ${end.value.plan.ops.length} operations`;
  }
  if (end.isDead) {
    count(node.tally, 'ADD died');
    const record = node.machine.state.find(request.key);
    if (known?.state !== 'attached')
      settle(node, {
        ...entry,
        state: record?.state === 'finished' && !recorded ? 'attached' : 'unsure',
      });
    return 'died';
  }
  const { error } = end;
  if (recorded?.state === 'finished') {
    if (!end.isHit) assert.equal(error instanceof CniError && error.code, CNI_ERROR.taken);
    assert.deepEqual(whole(node), before, 'a refused ADD has changed something');
    return 'exists already';
  }
  if (!end.isHit && !isRefusable(node, raw, request, error)) throw error;
  count(node.tally, end.isHit ? 'ADD failed' : 'ADD refused');
  // What keeps the next ADD from succeeding, STATUS has to know.
  if (isExhausted(node, raw)) statusStep(node, { do: 'STATUS', network });
  settle(node, { ...entry, state: 'unsure' });
  const isLeft = node.ledger.has(name);
  if (!recorded) {
    assert(
      !isLeft || (fate.kind !== 'fine' && fate.kind !== 'dies'),
      'a refused ADD has left its record',
    );
    // What could not be undone is removed with the attachment, but for what it shares.
    const isUndone = error instanceof CniError && error.details !== NOT_UNDONE;
    if (!isLeft && fate.kind !== 'unreadable' && (isUndone || isSound))
      assert.deepEqual(whole(node), before, 'a failed ADD has changed something');
    // Where the kernel cannot be read, it may be undone by removing the attachment: forwarding stays, and so does what
    // another one that is half made, or damaged, has a share in.
    const isAlone = [...node.ledger.values()].every(({ state }) => state === 'attached');
    if (!isLeft && isAlone && isSound)
      assert.deepEqual(
        plainState(withoutLasting(node.machine.backend.host())),
        plainState(withoutLasting(host)),
        'a failed ADD has left something',
      );
  }
  return `${error instanceof Error ? error.message : String(error)}${isLeft ? ', its record stays' : ''}`;
}
