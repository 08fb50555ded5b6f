/** A cluster that packets can cross: hosts of pods on one router, which has a route to the pods of each. */
import { type Host, type Netns, getNetns } from '../../model/host.ts';
import type { Ip } from '../../model/ip.ts';
import { parseIp } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import {
  addressOps,
  applyAll,
  bridgeOps,
  netnsOps,
  routeOps,
  vethOps,
} from '../../test/sim/pods.ts';

const ROUTER = 'router';

function mac(kind: number, number: number): string {
  const bytes = [2, kind, 0, number >> 16, number >> 8, number].map((byte) => byte & 255);
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** The address of a host in the underlay; number from 0. */
function underlayOf(host: number): string {
  return `172.16.${host >> 7}.${(host & 127) + 2}`;
}

/** The first three parts of the addresses of a host's pods. */
function subnetOf(host: number): string {
  return `10.${host >> 8}.${host & 255}`;
}

function hostName(host: number): string {
  return `host${host}`;
}

export function podName(host: number, pod: number): string {
  return `host${host}-pod${pod}`;
}

/** The address of a pod; both numbers from 0. */
export function podIp(host: number, pod: number): Ip {
  return parseIp(`${subnetOf(host)}.${pod + 2}`);
}

function forwards(netns: string): Op {
  return { op: 'sysctl.set', netns, key: 'net/ipv4/ip_forward', value: '1' };
}

/** The router and the hosts, without pods. */
function underlay(hosts: number): Host {
  const ofRouter = [
    ...netnsOps(ROUTER),
    forwards(ROUTER),
    ...bridgeOps(ROUTER, 'br0', mac(1, 0)),
    ...addressOps(ROUTER, 'br0', '172.16.0.1/16'),
  ];
  const ofHosts = Array.from({ length: hosts }, (_, host) => [
    ...netnsOps(hostName(host)),
    forwards(hostName(host)),
    ...vethOps(ROUTER, `p${host}`, mac(2, host), 'br0', hostName(host), 'eth0', mac(3, host)),
    ...addressOps(hostName(host), 'eth0', `${underlayOf(host)}/16`),
    ...routeOps(hostName(host), 'eth0', '0.0.0.0/0', '172.16.0.1'),
    ...routeOps(ROUTER, 'br0', `${subnetOf(host)}.0/24`, underlayOf(host)),
  ]);
  return applyAll({ netns: {} }, [...ofRouter, ...ofHosts.flat()]);
}

function podOps(host: number, pod: number): Op[] {
  const name = podName(host, pod);
  const number = host * 1000 + pod;
  return [
    ...netnsOps(name),
    ...vethOps(hostName(host), `v${pod}`, mac(4, number), 'cni0', name, 'eth0', mac(5, number)),
    ...addressOps(name, 'eth0', `${podIp(host, pod)}/24`),
    ...routeOps(name, 'eth0', '0.0.0.0/0', `${subnetOf(host)}.1`),
  ];
}

/** As many hosts with as many pods each. */
export function fabric(hosts: number, pods: number): Host {
  const base = underlay(hosts);
  const netns: Record<string, Netns> = { ...base.netns };
  for (let host = 0; host < hosts; host += 1) {
    const name = hostName(host);
    const ops = [
      ...bridgeOps(name, 'cni0', mac(6, host)),
      ...addressOps(name, 'cni0', `${subnetOf(host)}.1/24`),
      ...Array.from({ length: pods }, (_, pod) => podOps(host, pod)).flat(),
    ];
    // By itself, and with the router at the far end of its link: an operation copies the list of all netns.
    const alone = { [name]: getNetns(base, name), [ROUTER]: getNetns(base, ROUTER) };
    const { [ROUTER]: _router, ...own } = applyAll({ netns: alone }, ops).netns;
    Object.assign(netns, own);
  }
  return { netns };
}
