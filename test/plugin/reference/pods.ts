/** A node in memory as the reference bridge leaves it. */
import { withLink, withNetns, HOST_NETNS, type Host } from '../../../model/host.ts';
import type { Ifname } from '../../../model/ifname.ts';
import type { BridgePort, Link } from '../../../model/link.ts';
import { parseMac } from '../../../model/mac.ts';

/** One pod by what the reference bridge named and numbered. */
export interface PodChoice {
  readonly hostIfname: string;
  readonly hostMac: string;
  readonly netns: string;
  readonly alias?: string;
}

const COMMON = {
  mtuBytes: 1450,
  up: true,
  promiscuous: false,
  alias: '',
  port: null,
  addresses: [],
  neighbours: [],
} as const;

function port(master: string): BridgePort {
  return {
    master: master as Ifname,
    hairpin: true,
    isolated: false,
    learning: true,
    flood: true,
  };
}

/** A link of the host that is no pod's. */
export function withDevice(host: Host, ifname: string, deviceKind: string): Host {
  const common = { ...COMMON, ifname: ifname as Ifname, mac: parseMac('02:00:00:00:00:0f') };
  const link: Link =
    deviceKind === 'ifb'
      ? { ...common, kind: 'ifb' }
      : { ...common, kind: 'device', deviceKind, carrier: true };
  return withLink(host, HOST_NETNS, link);
}

/** A host with the bridge cni0 and these pods on it; each has its link `eth0`. */
export function referenceHost(pods: readonly PodChoice[]): Host {
  const empty = { links: {}, routes: [], sysctls: {}, nftables: {} };
  const bridge: Link = {
    ...COMMON,
    kind: 'bridge',
    ifname: 'cni0' as Ifname,
    mac: parseMac('b2:58:2a:60:41:1c'),
    hadPorts: true,
    macChosen: true,
    mtuChosen: false,
  };
  const start = withLink({ netns: { [HOST_NETNS]: empty } }, HOST_NETNS, bridge);
  return pods.reduce((host, { hostIfname, hostMac, netns, alias = '' }) => {
    const end: Link = {
      ...COMMON,
      kind: 'veth',
      ifname: hostIfname as Ifname,
      mac: parseMac(hostMac),
      alias,
      port: port('cni0'),
      peer: { netns, ifname: 'eth0' as Ifname },
    };
    const pod: Link = {
      ...COMMON,
      kind: 'veth',
      ifname: 'eth0' as Ifname,
      mac: parseMac('b2:a5:e2:4b:36:0e'),
      peer: { netns: HOST_NETNS, ifname: hostIfname as Ifname },
    };
    return withLink(withNetns(withLink(host, HOST_NETNS, end), netns, empty), netns, pod);
  }, start);
}
