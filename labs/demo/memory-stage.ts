import { makeMemoryBackend } from '../../backends/memory.ts';
import type { Host } from '../../model/host.ts';
import { parseIfname } from '../../model/ifname.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { formatPlan } from '../../model/plan-text.ts';
import { add, planAdd } from '../../plugin/call/add.ts';
import { checkCall, planRepair } from '../../plugin/call/check.ts';
import type { CallContext } from '../../plugin/call/context.ts';
import { del, planDel } from '../../plugin/call/del.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import { CniError, formatError } from '../../plugin/cni/error.ts';
import { type Request, parseRequest } from '../../plugin/cni/request.ts';
import { formatResult } from '../../plugin/cni/result.ts';
import { IN_MEMORY, openStore } from '../../plugin/store/open.ts';
import { probe } from '../../sim/probe.ts';
import { formatTrace, formatVerdict } from '../../sim/trace.ts';
import { makeWorld } from '../../sim/world.ts';
import { type DemoVerb, type Pod, type Stage, networkConfig } from './stage.ts';

const LOOPBACK = parseIfname('lo');

/** A host and two pods in which nothing is but a loopback link. */
function startingHost(pods: readonly Pod[]): Host {
  const ops: Op[] = [
    { op: 'netns.add', netns: 'host' },
    ...pods.flatMap((pod): Op[] => [
      { op: 'netns.add', netns: pod.netns },
      // A runtime brings up the loopback link by a plugin of its own.
      { op: 'link.set', netns: pod.netns, ifname: LOOPBACK, set: { up: true } },
    ]),
    { op: 'link.set', netns: 'host', ifname: LOOPBACK, set: { up: true } },
  ];
  return ops.reduce<Host>(
    (host, op) => {
      const outcome = applyOp(host, op);
      if (!outcome.ok) throw new Error(`${op.op}: ${outcome.fault.errno}`);
      return outcome.host;
    },
    { netns: {} },
  );
}

/** A pod by its letter. */
function podOf(name: string): Pod {
  return {
    name: `pod ${name}`,
    containerId: `demo-${name}`,
    netns: `/run/netns/demo-${name}`,
  };
}

/** The request that a runtime would make. */
function requestFor(verb: DemoVerb, pod: Pod, prevResult?: unknown): Request {
  return parseRequest(
    {
      CNI_COMMAND: verb,
      CNI_CONTAINERID: pod.containerId,
      CNI_NETNS: pod.netns,
      CNI_IFNAME: 'eth0',
      CNI_PATH: '/opt/cni/bin',
    },
    JSON.stringify({ ...networkConfig('/nowhere', '/nowhere'), prevResult }),
  );
}

/** The kernel in memory: the same planner, the same operations, and a simulator for the packets. */
export function makeMemoryStage(): Stage {
  const pods = [podOf('a'), podOf('b')] as const;
  const backend = makeMemoryBackend(startingHost(pods));
  const context: CallContext = {
    backend,
    state: openStore(IN_MEMORY, 'demo'),
    identity: {
      machineId: 'demo',
      digest: (text) => new Bun.CryptoHasher('sha256').update(text).digest(),
    },
    worker: { pid: 1, startTime: '0' },
    isAlive: () => false,
    exclusively: (work) => work(),
    isOwnNetns: () => false,
    clock: () => 0,
    now: () => 0,
    pause: () => undefined,
    readText: () => undefined,
    reservedByHostLocal: () => [],
    delegate: () => undefined,
    depart: () => undefined,
    log: () => undefined,
  };
  const answer = (request: Request): string => {
    if (request.verb === 'CHECK') checkCall(context, request);
    if (request.verb === 'DEL') del(context, request.key);
    if (request.verb !== 'ADD') return '';
    const added = add(context, request, parseConfig(request.config));
    added.finish();
    return formatResult(added.result, request.cniVersion);
  };
  return {
    title: 'a kernel in memory',
    pods,
    plan: async (verb, pod) => {
      const request = requestFor(verb, pod);
      if (verb === 'ADD')
        return formatPlan(planAdd(context, request, parseConfig(request.config)).plan);
      const planned =
        verb === 'DEL' ? planDel(context, request.key) : planRepair(context, request.key);
      return planned ? formatPlan(planned.plan) : '';
    },
    call: async (verb, pod, prevResult) => {
      const request = requestFor(verb, pod, prevResult);
      try {
        return { ok: true, output: answer(request) };
      } catch (error) {
        if (!(error instanceof CniError)) throw error;
        return { ok: false, output: formatError(error, request.cniVersion) };
      }
    },
    ping: (from, destination) => {
      const trace = probe(makeWorld(backend.host()), { netns: from.netns, destination });
      return {
        ok: trace.verdict.kind === 'delivered',
        text: formatVerdict(trace.verdict),
        trace: formatTrace(trace),
      };
    },
    interfere: (op) => backend.execute(op),
    observe: () => backend.host(),
    close: () => undefined,
  };
}
