/** The calls that runtimes make in the life of a pod, in their order and their spelling; after DEL nothing is left of it. */
import { readlinkSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { hostState, linkNames } from './kernel-state.ts';
import {
  type ConfigList,
  type Libcni,
  type RuntimeConf,
  type ValidAttachment,
  makeLibcni,
} from './libcni.ts';
import { type Node, makeNode, recordsOf, run } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

type Json = Readonly<Record<string, unknown>>;

/** A network with all that leaves something on the host, behind which `lo` is set up in the same chain. */
function listFor(node: Node, cniVersion: string, changes: Json = {}): ConfigList {
  const {
    name,
    cniVersion: _version,
    ...plugin
  } = node.config({
    capabilities: {
      portMappings: true,
      bandwidth: true,
      dns: true,
      'io.kubernetes.cri.pod-annotations': true,
    },
    isDefaultGateway: true,
    hairpinMode: true,
    ipMasq: true,
    macspoofchk: true,
    ingressPolicy: 'isolated',
    sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' },
    ipam: { type: 'cube-ipam', ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]] },
    ...changes,
  });
  return {
    cniVersion,
    name: String(name),
    plugins: [{ ...plugin, type: 'cube-cni' }, { type: 'loopback' }],
  };
}

/** All that calls can change on the host and in the state. */
function stateOf(node: Node): Json {
  return { host: hostState(node.netns), records: recordsOf(node.dataDir) };
}

/** Removes a netns as the end of its last process does. */
function removeNetns(netns: string): void {
  run('ip', 'netns', 'del', netns.replace('/run/netns/', ''));
}

interface Runtime {
  readonly node: Node;
  readonly libcni: Libcni;
  readonly list: ConfigList;
  /** What is there without any pod. */
  readonly empty: Json;
}

function makeRuntime(cniVersion: string): Runtime {
  const node = makeNode();
  return { node, libcni: makeLibcni(node), list: listFor(node, cniVersion), empty: stateOf(node) };
}

/** Expects that a state shows a pod, so that its absence from another one says something. */
function expectTraces(state: Json, { containerId }: RuntimeConf, hostPort: number): void {
  const text = JSON.stringify(state);
  expect(text).toContain(containerId);
  expect(text).toContain(`${hostPort}`);
}

/** A container id as runtimes make them. */
function containerIdOf(name: string): string {
  return Buffer.from(name).toString('hex').padEnd(64, '0');
}

/**
 * A pod as CRI-O asks for it (buildCNIRuntimeConf in pkg/ocicni/ocicni.go of github.com/cri-o/ocicni; keys of port
 * mappings as in its pkg/ocicni/types.go). CRI-O itself leaves host ports to its own manager; podman had them here.
 */
function crioPod(name: string, netns: string, hostPort: number): RuntimeConf {
  const containerId = containerIdOf(name);
  const burst = 0xff_ff_ff_ff * 8 - 1;
  return {
    containerId,
    netns,
    ifname: 'eth0',
    args: [
      ['IgnoreUnknown', '1'],
      ['K8S_POD_NAMESPACE', 'default'],
      ['K8S_POD_NAME', name],
      ['K8S_POD_INFRA_CONTAINER_ID', containerId],
      ['K8S_POD_UID', `uid-of-${name}`],
    ],
    capabilityArgs: {
      portMappings: [{ hostPort, containerPort: 80, protocol: 'tcp', hostIP: '' }],
      bandwidth: {
        ingressRate: 10_000_000,
        ingressBurst: burst,
        egressRate: 5_000_000,
        egressBurst: burst,
      },
      'io.kubernetes.cri.pod-annotations': { 'example.com/a': 'b' },
    },
  };
}

/**
 * SetUpPod and then, at once, GetPodNetworkStatus (networkStart in server/sandbox_network.go of
 * github.com/cri-o/cri-o): ADD, and CHECK with its result. A CHECK that fails is the end of the pod.
 */
function crioStart({ libcni, list }: Runtime, pod: RuntimeConf): void {
  libcni.add(list, pod);
  libcni.check(list, pod);
}

/**
 * TearDownPod: DEL from the configuration in the cache; without one, from that of the folder, with what CRI-O knows of
 * the pod, which is no host ports (networkStop in server/sandbox_network.go, forEachNetwork in ocicni.go).
 */
function crioStop({ libcni, list }: Runtime, pod: RuntimeConf): void {
  const known = libcni.cached(list.name, pod) ?? { list, conf: { ...pod, capabilityArgs: {} } };
  libcni.del(known.list, known.conf);
}

function valid(...pods: readonly RuntimeConf[]): ValidAttachment[] {
  return pods.map(({ containerId, ifname }) => ({ containerID: containerId, ifname }));
}

describe.skipIf(skip)('CRI-O', () => {
  test('asks for VERSION when it loads a network, and for STATUS until that is ready', () => {
    const { node, libcni, list, empty } = makeRuntime('1.1.0');
    // loadNetworks in ocicni.go.
    libcni.validate(list);
    expect(() => libcni.validate({ ...list, cniVersion: '9.0.0' })).toThrow('9.0.0');
    expect(stateOf(node)).toEqual(empty);

    // pollUntilReady and statusPollFunc in internal/config/cnimgr/cnimgr.go: every 500 ms, then GC once.
    node.run('ip', 'link', 'add', 'cni0', 'type', 'veth', 'peer', 'name', 'peer0');
    for (let polls = 0; polls < 2; polls += 1)
      expect(() => libcni.status(list)).toThrow('"code": 50,');
    node.run('ip', 'link', 'del', 'cni0');
    libcni.status(list);
    libcni.gc(list, []);
    expect(stateOf(node)).toEqual(empty);
  });

  test('checks each pod at once, and stops it when its netns is gone', () => {
    const runtime = makeRuntime('1.1.0');
    const { node } = runtime;
    const other = crioPod('other', node.addPod(), 8081);
    crioStart(runtime, other);
    const before = stateOf(node);
    const pod = crioPod('web', node.addPod(), 8080);
    crioStart(runtime, pod);
    expectTraces(stateOf(node), pod, 8080);

    removeNetns(pod.netns);
    crioStop(runtime, pod);
    expect(stateOf(node)).toEqual(before);
    crioStop(runtime, pod); // StopPodSandbox may come again; now nothing is in the cache
    expect(stateOf(node)).toEqual(before);
    runtime.libcni.check(runtime.list, other);
    crioStop(runtime, other);
    expect(stateOf(node)).toEqual(runtime.empty);
  });

  test.each([
    ['as it was', true],
    ['gone', false],
  ])(
    'stops a pod that its cache knows nothing of, without host ports, with the netns %s',
    (_, kept) => {
      const runtime = makeRuntime('1.1.0');
      const { node, libcni, list } = runtime;
      const other = crioPod('other', node.addPod(), 8081);
      crioStart(runtime, other);
      const before = stateOf(node);
      const pod = crioPod('web', node.addPod(), 8080);
      crioStart(runtime, pod);
      expectTraces(stateOf(node), pod, 8080);

      libcni.forget(list.name, pod);
      if (!kept) removeNetns(pod.netns);
      crioStop(runtime, pod);
      expect(stateOf(node)).toEqual(before);
      if (kept) expect(linkNames(pod.netns)).toEqual([]);
      crioStop(runtime, other);
      expect(stateOf(node)).toEqual(runtime.empty);
    },
  );

  test('finds pods gone when it starts again: those it cached by DEL, the others by GC', () => {
    const runtime = makeRuntime('1.1.0');
    const { node, libcni, list } = runtime;
    const stays = crioPod('stays', node.addPod(), 8080);
    crioStart(runtime, stays);
    const before = stateOf(node);
    const cached = crioPod('cached', node.addPod(), 8081);
    crioStart(runtime, cached);
    const uncached = crioPod('uncached', node.addPod(), 8082);
    crioStart(runtime, uncached);
    // It was killed before it wrote down what the plugin had answered.
    libcni.forget(list.name, uncached);
    for (const [pod, port] of [
      [cached, 8081],
      [uncached, 8082],
    ] as const)
      expectTraces(stateOf(node), pod, port);
    removeNetns(cached.netns);
    removeNetns(uncached.netns);

    // New in server/server.go: restore asks for the addresses of the pods that are left, which is CHECK, and then for GC.
    libcni.validate(list);
    libcni.check(list, stays);
    libcni.status(list);
    libcni.gc(list, valid(stays));
    expect(stateOf(node)).toEqual(before);
    libcni.check(list, stays);

    // The node was rebooted, or all pods were removed meanwhile.
    removeNetns(stays.netns);
    libcni.gc(list, []);
    expect(stateOf(node)).toEqual(runtime.empty);
  });
});

describe.skipIf(skip)('libcni', () => {
  test.each(['0.3.1', '0.4.0', '1.0.0', '1.1.0'])(
    'with %s: the chain forwards for ADD and CHECK, backwards for DEL, which knows no host ports',
    (cniVersion) => {
      const { node, libcni, list, empty } = makeRuntime(cniVersion);
      libcni.validate(list);
      const other = crioPod('other', node.addPod(), 8081);
      libcni.add(list, other);
      const before = stateOf(node);
      const pod = crioPod('web', node.addPod(), 8080);
      const result = libcni.add(list, pod);
      // The last plugin's result is that of the first, in the form of the list's version.
      expect(result.cniVersion).toBe(cniVersion);
      expect(result.interfaces).toContainEqual(expect.objectContaining({ name: 'eth0' }));
      expectTraces(stateOf(node), pod, 8080);
      if (cniVersion !== '0.3.1') libcni.check(list, pod);

      // DelNetworkList takes the capabilities of its caller, not those of the cache.
      const bare = { ...pod, capabilityArgs: {} };
      libcni.del(list, bare);
      expect(stateOf(node)).toEqual(before);
      expect(linkNames(pod.netns)).toEqual([]);
      libcni.del(list, { ...bare, netns: '' }); // without a result either
      expect(stateOf(node)).toEqual(before);
      libcni.del(list, { ...other, capabilityArgs: {} });
      expect(stateOf(node)).toEqual(empty);
    },
  );
});

/** A process in a netns that has no other name than `/proc/PID/ns/net`, and ends with it. */
async function startContainer(): Promise<{ netns: string; end: () => Promise<void> }> {
  const own = readlinkSync('/proc/self/ns/net');
  const child = Bun.spawn(['unshare', '--net', 'sh', '-c', 'echo ready; exec sleep infinity']);
  onTestFinished(() => child.kill('SIGKILL'));
  for await (const chunk of child.stdout)
    if (new TextDecoder().decode(chunk).includes('ready')) break;
  const netns = `/proc/${child.pid}/ns/net`;
  expect(readlinkSync(netns)).not.toBe(own);
  return {
    netns,
    end: async () => {
      child.kill('SIGKILL');
      await child.exited;
    },
  };
}

/**
 * A container as nerdctl asks for it (applyNetworkSettings in pkg/ocihook/ocihook.go of github.com/containerd/nerdctl;
 * keys as in types.go of github.com/containerd/go-cni, whose structures name none).
 */
function nerdctlContainer(name: string, netns: string, hostPort: number): RuntimeConf {
  const burst = 0xff_ff_ff_ff;
  return {
    containerId: `default-${containerIdOf(name)}`,
    netns,
    ifname: 'eth0',
    args: [
      ['IgnoreUnknown', '1'],
      ['NERDCTL_CNI_DHCP_HOSTNAME', name],
    ],
    capabilityArgs: {
      portMappings: [{ HostPort: hostPort, ContainerPort: 80, Protocol: 'tcp', HostIP: '0.0.0.0' }],
      bandwidth: {
        IngressRate: 10_000_000,
        IngressBurst: burst,
        EgressRate: 5_000_000,
        EgressBurst: burst,
      },
      dns: { Servers: ['192.0.2.53'], Searches: null, Options: null },
    },
  };
}

/** The hook onCreateRuntime: DEL for what an earlier start may have left, whatever comes of it, then ADD. */
function nerdctlStart({ libcni, list }: Runtime, container: RuntimeConf): void {
  libcni.del(list, { ...container, netns: '' });
  libcni.add(list, container);
}

/** The hook onPostStop: the process is gone, and DEL has neither its netns nor the arguments. */
function nerdctlStop({ libcni, list }: Runtime, container: RuntimeConf): void {
  libcni.del(list, { ...container, netns: '', args: [] });
}

describe.skipIf(skip)('nerdctl', () => {
  test('deletes before it adds, and without a netns when the container has ended', async () => {
    const runtime = makeRuntime('1.0.0');
    const { node, libcni, list } = runtime;
    const process = await startContainer();
    const container = nerdctlContainer('web', process.netns, 8080);
    libcni.del(list, { ...container, netns: '' });
    expect(stateOf(node)).toEqual(runtime.empty);
    nerdctlStart(runtime, container);
    expectTraces(stateOf(node), container, 8080);
    await process.end();
    nerdctlStop(runtime, container);
    expect(stateOf(node)).toEqual(runtime.empty);
  });

  test.each([
    ['ended', true],
    ['went on', false],
  ])(
    'starts a container again of which it was not told that it had ended; its process %s',
    async (_, ended) => {
      const runtime = makeRuntime('1.0.0');
      const { node } = runtime;
      const other = nerdctlContainer('other', (await startContainer()).netns, 8081);
      nerdctlStart(runtime, other);
      const before = stateOf(node);
      const first = await startContainer();
      nerdctlStart(runtime, nerdctlContainer('web', first.netns, 8080));
      // containerd was started anew: the same container, the same host port, no DEL between but that of the hook.
      if (ended) await first.end();
      const second = ended ? await startContainer() : first;
      const container = nerdctlContainer('web', second.netns, 8080);
      nerdctlStart(runtime, container);
      runtime.libcni.check(runtime.list, container);
      expectTraces(stateOf(node), container, 8080);
      await second.end();
      nerdctlStop(runtime, container);
      expect(stateOf(node)).toEqual(before);
    },
  );
});
