import { HOST_NETNS, type Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { ipFromBits, ipBits, parseIp } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import { type Attachment, type Identity, makeAttachment } from '../../plugin/attachment.ts';
import { planAttachment } from '../../plugin/call/attach.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
/** A node in the model, and the operations by which the plugin puts pods on it. */
import { afterOps, makeMachine } from '../../test/plugin/machine.ts';
import { networkList } from '../network.ts';

const IDENTITY: Identity = {
  machineId: '0123456789abcdef0123456789abcdef',
  digest: (text) => new Bun.CryptoHasher('sha256').update(text).digest(),
};

const NETWORK = 'bench';

/** The network of the other benches whose pods masquerade. */
const [PLUGIN] = networkList(
  { label: 'ours', executable: '', type: 'cube-cni', cniPath: '' },
  'masq',
  '',
).plugins;
const CONFIG = parseConfig({ cniVersion: '1.0.0', name: NETWORK, ...PLUGIN?.config });

const GATEWAY = parseIp('10.88.0.1');
const PREFIX_LENGTH = 16;
const MTU_BYTES = 1500;

/** The node before its first pod: of its settings it is known what an ADD reads. */
export const NODE_OPS: readonly Op[] = [
  { op: 'netns.add', netns: HOST_NETNS },
  { op: 'sysctl.set', netns: HOST_NETNS, key: 'net/ipv4/ip_forward', value: '0' },
];

/** The attachment of a node's pod `number`, counted from 0, whose netns is named after both. */
export function attachmentOf(node: string, number: number): Attachment {
  const containerId = `${node}-pod${number}`;
  return makeAttachment(IDENTITY, {
    key: { network: NETWORK, containerId, ifname: 'eth0' as Ifname },
    netns: containerId,
    config: CONFIG,
    mac: undefined,
    mtuBytes: MTU_BYTES,
    addresses: [
      {
        ip: ipFromBits(4, ipBits(GATEWAY) + BigInt(number + 1)),
        prefixLength: PREFIX_LENGTH,
        gateway: GATEWAY,
      },
    ],
    routes: [],
    dns: undefined,
    ipam: undefined,
    portMappings: [],
    limits: undefined,
    tuning: undefined,
  });
}

/** The netns that a runtime makes for a pod before it calls the plugin. */
export function netnsOp({ netns }: Attachment): Op {
  return { op: 'netns.add', netns };
}

/**
 * The operations that bring `count` pods onto a node, by pod: the netns, then what an ADD plans. A plan depends on the
 * bridge and not on the other pods, so that all but the first are planned beside the first alone.
 */
export function podOps(node: string, count: number): Op[][] {
  const machine = makeMachine(afterOps({ netns: {} }, NODE_OPS));
  const context = machine.start();
  let beside = machine.backend.host();
  return Array.from({ length: count }, (_, number) => {
    const attachment = attachmentOf(node, number);
    const made = netnsOp(attachment);
    machine.backend.replace(afterOps(beside, [made]));
    const { ops } = planAttachment(context, { attachment, begun: undefined });
    if (number === 0) beside = afterOps(machine.backend.host(), ops);
    return [made, ...ops];
  });
}

/** The node with its first `count` pods. */
export function nodeWith(node: string, count: number): Host {
  return afterOps({ netns: {} }, [...NODE_OPS, ...podOps(node, count).flat()]);
}
