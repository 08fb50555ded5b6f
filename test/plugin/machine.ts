/** A machine in memory: its kernel, its state file, and the processes that calls are. */
import { type MemoryBackend, makeMemoryBackend } from '../../backends/memory.ts';
import { HOST_NETNS, type Host, withLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Ip } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { type Identity, formatKey } from '../../plugin/attachment.ts';
import { type Added, add } from '../../plugin/call/add.ts';
import type { CallContext } from '../../plugin/call/context.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import { type Request, type Verb, parseRequest } from '../../plugin/cni/request.ts';
import type { Delegate } from '../../plugin/ipam/delegate.ts';
import { IN_MEMORY, openStore } from '../../plugin/store/open.ts';
import type { Store } from '../../plugin/store/store.ts';

/** Names that come out alike on every machine. */
const IDENTITY: Identity = {
  machineId: '0123456789abcdef0123456789abcdef',
  digest: (text) => new Bun.CryptoHasher('sha256').update(text).digest(),
};

export interface Machine {
  readonly backend: MemoryBackend;
  readonly state: Store;
  /** The pids of the processes that still run. */
  readonly living: Set<number>;
  /** What was logged, as `LEVEL MESSAGE`. */
  readonly log: string[];
  /** What the clock on the wall says; tests move it. */
  timeMs: number;
  /** The addresses that the reference's host-local has handed out. */
  reserved: readonly Ip[];
  /** What another IPAM plugin answers. */
  delegate: Delegate;
  /** What the reference plugins had made and is removed by its own means, by name. */
  readonly departed: string[];
  /** Starts a process: what a call in it works with. */
  readonly start: () => CallContext;
}

/** A machine with this network and these records: no attachment yet, unless somebody gives a state file. */
export function makeMachine(host: Host, state: Store = openStore(IN_MEMORY, 'boot')): Machine {
  const backend = makeMemoryBackend(host);
  const living = new Set<number>();
  const log: string[] = [];
  let pids = 100;
  let locked = false;
  const start = (): CallContext => {
    const pid = (pids += 1);
    living.add(pid);
    return {
      backend,
      state,
      identity: IDENTITY,
      worker: { pid, startTime: String(pid) },
      isAlive: (worker) => living.has(worker.pid) && worker.startTime === String(worker.pid),
      exclusively: (work) => {
        if (locked) throw new Error('a call waits for itself');
        locked = true;
        try {
          return work();
        } finally {
          locked = false;
        }
      },
      isOwnNetns: () => false,
      clock: () => 0,
      now: () => machine.timeMs,
      pause: (durationMs) => {
        machine.timeMs += durationMs;
      },
      readText: () => undefined,
      reservedByHostLocal: () => machine.reserved,
      delegate: (call) => machine.delegate(call),
      depart: ({ key }) => machine.departed.push(formatKey(key)),
      log: (level, message) => log.push(`${level} ${message}`),
    };
  };
  const machine: Machine = {
    backend,
    state,
    living,
    log,
    timeMs: 1_000_000,
    reserved: [],
    departed: [],
    delegate: () => {
      throw new Error('no test has said what the other plugin does');
    },
    start,
  };
  return machine;
}

/** The netns of the pods there are. */
export const PODS = ['/run/netns/pod0', '/run/netns/pod1', '/run/netns/pod2'] as const;

/** The host after operations none of which may fail. */
export function afterOps(host: Host, ops: readonly Op[]): Host {
  return ops.reduce((state, op) => {
    const outcome = applyOp(state, op);
    if (!outcome.ok)
      throw new Error(`${JSON.stringify(op)}: ${outcome.fault.errno} ${outcome.fault.text}`);
    return outcome.host;
  }, host);
}

/**
 * A node with one network card, and pods, in these netns, that have nothing but a loopback. Links have no link-local
 * addresses, unless the machine is to be as Linux makes it.
 */
export function plainHost(
  links: 'without link-local' | 'as Linux makes them' = 'without link-local',
  pods: readonly string[] = PODS,
): Host {
  const netns = [HOST_NETNS, ...pods];
  const mode = links === 'without link-local' ? '1' : '0';
  const bare = afterOps(
    { netns: {}, kernel: { release: '6.18.0', bridgeVlans: true } },
    netns.map((name): Op => ({ op: 'netns.add', netns: name })),
  );
  const node = withLink(bare, HOST_NETNS, {
    kind: 'device',
    deviceKind: '',
    carrier: true,
    ifname: 'uplink' as Ifname,
    mac: parseMac('52:54:00:12:34:56'),
    mtuBytes: 1500,
    up: true,
    promiscuous: false,
    alias: '',
    port: null,
    addresses: [],
    neighbours: [],
  });
  return afterOps(
    node,
    netns.flatMap((name): Op[] => [
      { op: 'sysctl.set', netns: name, key: 'net/ipv4/ip_forward', value: '0' },
      { op: 'sysctl.set', netns: name, key: 'net/ipv4/conf/default/route_localnet', value: '0' },
      { op: 'sysctl.set', netns: name, key: 'net/ipv4/conf/default/arp_filter', value: '0' },
      { op: 'sysctl.set', netns: name, key: 'net/ipv6/conf/all/forwarding', value: '0' },
      { op: 'sysctl.set', netns: name, key: 'net/ipv6/conf/default/addr_gen_mode', value: mode },
      { op: 'sysctl.set', netns: name, key: 'net/ipv6/conf/default/accept_dad', value: '1' },
      { op: 'sysctl.set', netns: name, key: 'net/ipv6/conf/default/disable_ipv6', value: '0' },
    ]),
  );
}

/** Configurations that are too old for CHECK are checked as the next that is not. */
const CHECKED: Readonly<Record<string, string>> = { '0.3.0': '0.4.0', '0.3.1': '0.4.0' };

/** The configuration with host ports of the pod's own, where it asks for any: no two pods can have one port. */
function withOwnPorts(raw: Readonly<Record<string, unknown>>, pod: number): unknown {
  const runtime = raw['runtimeConfig'] as { portMappings?: { hostPort: number }[] } | undefined;
  if (!runtime?.portMappings) return raw;
  const portMappings = runtime.portMappings.map((each) => ({
    ...each,
    hostPort: each.hostPort + pod,
  }));
  return { ...raw, runtimeConfig: { ...runtime, portMappings } };
}

/** The request of a container whose netns is that of pod `pod`. */
export function requestFor(
  verb: Exclude<Verb, 'VERSION'>,
  raw: Readonly<Record<string, unknown>>,
  pod: number,
  more: { readonly containerId?: string; readonly ifname?: string; readonly netns?: string } = {},
): Request {
  const { containerId = `c${pod}`, ifname = 'eth0', netns = PODS[pod] } = more;
  return parseRequest(
    {
      CNI_COMMAND: verb,
      CNI_CONTAINERID: containerId,
      CNI_NETNS: netns,
      CNI_IFNAME: ifname,
      CNI_PATH: '/opt/cni/bin',
    },
    JSON.stringify(
      withOwnPorts(
        verb === 'CHECK'
          ? { ...raw, cniVersion: CHECKED[String(raw['cniVersion'])] ?? raw['cniVersion'] }
          : raw,
        pod,
      ),
    ),
  );
}

/** ADD in a process of its own, from the request to where the runtime has the result. */
export function attachPod(
  machine: Machine,
  raw: Readonly<Record<string, unknown>>,
  pod: number,
): Added {
  const context = machine.start();
  const request = requestFor('ADD', raw, pod);
  const added = add(context, request, parseConfig(request.config));
  added.finish();
  machine.living.delete(context.worker.pid);
  return added;
}

const FIRST = { 4: '0.0.0.0' as Ip, 6: '::' as Ip };
const LAST = { 4: '255.255.255.255' as Ip, 6: 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff' as Ip };

/** Everything that the state file says of a network, for comparison. */
export function stateOf({ state }: Machine, network = 'net'): unknown {
  const book = state.addressBook(network);
  return {
    records: state.list(),
    taken: [...book.takenBetween(FIRST[4], LAST[4]), ...book.takenBetween(FIRST[6], LAST[6])],
  };
}
