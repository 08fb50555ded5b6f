import { randomUUID } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import * as z from 'zod';

/** A pod as the runtime knows it: the sandbox's id, and the config it was run with, which CreateContainer wants again. */
export interface Pod {
  readonly id: string;
  readonly name: string;
  readonly config: object;
}

/** What the runtime says of a pod sandbox. The addresses are those of the CNI result, in its order, without prefix lengths. */
export interface PodStatus {
  readonly ready: boolean;
  /** The first address, as Kubernetes' `status.podIP`; "" when the pod has no network any more. */
  readonly ip: string;
  /** The others, as in `status.podIPs`. */
  readonly additionalIps: readonly string[];
  /** The path of the pod's netns, as CNI_NETNS gets it; undefined once it is closed. */
  readonly netns: string | undefined;
}

/** How a command in a container ended. */
export interface Exit {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where the runtime puts what belongs to a pod, outside of its own folders. */
export interface PodPlaces {
  /** A folder for the containers' logs. */
  readonly logs: string;
  /** The parent cgroup, such as `/kubepods`. */
  readonly cgroupParent: string;
}

/** A port of the node that leads to one of a pod. */
export interface PortMapping {
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly hostPort: number;
  readonly containerPort: number;
}

/** What a kubelet asks for a pod's network, beside a name. */
export interface PodNetwork {
  readonly portMappings?: readonly PortMapping[];
  /** Such as `kubernetes.io/ingress-bandwidth`, of which the runtime makes a capability of its own. */
  readonly annotations?: Readonly<Record<string, string>>;
}

/** The calls of a kubelet that concern a pod's network. Each rejects with the runtime's own message. */
export interface Cri {
  /** Which conditions keep the runtime from running pods; an empty list means it is ready. */
  notReady(): Promise<readonly string[]>;
  hasImage(image: string): Promise<boolean>;
  /** RunPodSandbox: returns once the pod's netns is there and CNI ADD has succeeded. */
  runPod(name: string, network?: PodNetwork): Promise<Pod>;
  /** StopPodSandbox: CNI DEL, then the netns is closed. Allowed again on a stopped pod. */
  stopPod(id: string): Promise<void>;
  /** RemovePodSandbox: another CNI DEL, without a netns, then the runtime forgets the pod. Fine for an unknown id too. */
  removePod(id: string): Promise<void>;
  podStatus(id: string): Promise<PodStatus>;
  /** The ids of all pods, ready or not. */
  list(): Promise<readonly string[]>;
  /** CreateContainer and StartContainer; returns the container's id. */
  startContainer(pod: Pod, image: string, command: readonly string[]): Promise<string>;
  /** ExecSync: runs a command in a container until it ends. */
  exec(container: string, command: readonly string[]): Promise<Exit>;
  close(): void;
}

// A call that takes this long has hung. When it passes, containerd kills the plugin that the call waits for.
const CALL_TIMEOUT_MS = 60_000;
const EXEC_TIMEOUT_S = 30;

const definitions = loadSync(fileURLToPath(new URL('cri.proto', import.meta.url)), {
  longs: Number,
  enums: String,
  defaults: true,
});

const Nothing = z.object({});
const Conditions = z.object({
  status: z.object({
    conditions: z.array(z.object({ type: z.string(), status: z.boolean(), message: z.string() })),
  }),
});
const SandboxStatus = z.object({
  status: z.object({
    state: z.string(),
    network: z
      .object({ ip: z.string(), additionalIps: z.array(z.object({ ip: z.string() })) })
      .nullable(),
  }),
  info: z.record(z.string(), z.string()),
});
// containerd's own words under info.info, as far as the netns' path.
const SandboxInfo = z.object({
  runtimeSpec: z.object({
    linux: z.object({
      namespaces: z.array(z.object({ type: z.string(), path: z.string().optional() })),
    }),
  }),
});
const ExecResult = z.object({
  stdout: z.instanceof(Uint8Array),
  stderr: z.instanceof(Uint8Array),
  exitCode: z.number(),
});

/** A CRI client of the runtime that listens on the unix socket at this path; connects when first called. */
export function connectCri(socket: string, places: PodPlaces): Cri {
  const client = new grpc.Client(`unix://${socket}`, grpc.credentials.createInsecure(), {
    // grpc-js shares connections by address within a process, with the pauses between their attempts: after a
    // restart of the runtime a new client would wait out the old one's pause.
    'grpc.use_local_subchannel_pool': 1,
  });

  function call<T>(service: string, rpc: string, request: object, reply: z.ZodType<T>): Promise<T> {
    const definition = definitions[`runtime.v1.${service}`];
    if (definition === undefined || 'format' in definition)
      throw new Error(`cri.proto has no service ${service}`);
    const method = definition[rpc];
    if (method === undefined) throw new Error(`cri.proto has no ${service}.${rpc}`);
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        { deadline: Date.now() + CALL_TIMEOUT_MS },
        (error, message) => {
          if (error) reject(new Error(`${rpc}: ${error.details}`));
          else {
            const parsed = reply.safeParse(message);
            if (parsed.success) resolve(parsed.data);
            else reject(new Error(`${rpc}: unexpected reply: ${parsed.error.message}`));
          }
        },
      );
    });
  }

  return {
    async notReady() {
      const { status } = await call('RuntimeService', 'Status', {}, Conditions);
      return status.conditions
        .filter((one) => !one.status)
        .map((one) => `${one.type}: ${one.message}`);
    },

    async hasImage(image) {
      const reply = z.object({ image: z.object({}).nullable() });
      return (
        (await call('ImageService', 'ImageStatus', { image: { image } }, reply)).image !== null
      );
    },

    async runPod(name, { portMappings = [], annotations = {} } = {}) {
      const uid = randomUUID(); // what makes two pods of one name different for the runtime
      const config = {
        metadata: { name, uid, namespace: 'default', attempt: 0 },
        hostname: name,
        portMappings,
        annotations,
        logDirectory: `${places.logs}/${uid}`,
        // Without one the runtime copies the machine's resolv.conf, often a link into a /run that it does not see.
        dnsConfig: { servers: ['192.0.2.53'] },
        labels: {
          'io.kubernetes.pod.name': name,
          'io.kubernetes.pod.namespace': 'default',
          'io.kubernetes.pod.uid': uid,
        },
        linux: {
          cgroupParent: places.cgroupParent,
          securityContext: { namespaceOptions: { network: 'POD', pid: 'CONTAINER' } },
        },
      };
      const reply = z.object({ podSandboxId: z.string().min(1) });
      const { podSandboxId } = await call('RuntimeService', 'RunPodSandbox', { config }, reply);
      return { id: podSandboxId, name, config };
    },

    async stopPod(id) {
      await call('RuntimeService', 'StopPodSandbox', { podSandboxId: id }, Nothing);
    },

    async removePod(id) {
      await call('RuntimeService', 'RemovePodSandbox', { podSandboxId: id }, Nothing);
    },

    async podStatus(id) {
      const request = { podSandboxId: id, verbose: true };
      const { status, info } = await call(
        'RuntimeService',
        'PodSandboxStatus',
        request,
        SandboxStatus,
      );
      const detail =
        info.info === undefined ? undefined : SandboxInfo.safeParse(JSON.parse(info.info)).data;
      const netns = detail?.runtimeSpec.linux.namespaces.find(
        (namespace) => namespace.type === 'network',
      )?.path;
      return {
        ready: status.state === 'SANDBOX_READY',
        ip: status.network?.ip ?? '',
        additionalIps: (status.network?.additionalIps ?? []).map((address) => address.ip),
        netns,
      };
    },

    async list() {
      const reply = z.object({ items: z.array(z.object({ id: z.string() })) });
      return (await call('RuntimeService', 'ListPodSandbox', {}, reply)).items.map((pod) => pod.id);
    },

    async startContainer(pod, image, command) {
      const name = `c-${randomUUID()}`;
      const request = {
        podSandboxId: pod.id,
        config: {
          metadata: { name, attempt: 0 },
          image: { image },
          command,
          logPath: `${name}.log`,
          linux: { securityContext: { namespaceOptions: { pid: 'CONTAINER' } } },
        },
        sandboxConfig: pod.config,
      };
      const reply = z.object({ containerId: z.string().min(1) });
      const { containerId } = await call('RuntimeService', 'CreateContainer', request, reply);
      await call('RuntimeService', 'StartContainer', { containerId }, Nothing);
      return containerId;
    },

    async exec(containerId, cmd) {
      const request = { containerId, cmd, timeout: EXEC_TIMEOUT_S };
      const { stdout, stderr, exitCode } = await call(
        'RuntimeService',
        'ExecSync',
        request,
        ExecResult,
      );
      const text = new TextDecoder();
      return { code: exitCode, stdout: text.decode(stdout), stderr: text.decode(stderr) };
    },

    close() {
      client.close();
    },
  };
}
