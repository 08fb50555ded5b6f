import { describe, expect, it } from 'vitest';
import { HOST_NETNS, type Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Op } from '../../model/op.ts';
import { findOrigin, parseTarget } from '../../plugin/trace/endpoints.ts';
import { TWO_PODS_OPS, applyAll } from '../sim/pods.ts';

/** The two pods, on this machine's own netns. */
const OPS = TWO_PODS_OPS.map((op): Op => (op.netns === 'node' ? { ...op, netns: HOST_NETNS } : op));
const V_A = 'v-a' as Ifname;
const HOST: Host = applyAll({ netns: {} }, [
  ...OPS,
  {
    op: 'link.set',
    netns: HOST_NETNS,
    ifname: V_A,
    set: { alias: 'cube-cni net/container-a/eth0' },
  },
  { op: 'altname.add', netns: HOST_NETNS, ifname: V_A, altname: 'port-of-a' },
]);

describe('where a trace begins', () => {
  it.each([
    ['a', { netns: 'a' }],
    [HOST_NETNS, { netns: HOST_NETNS }],
    ['10.244.1.2', { netns: 'a', source: '10.244.1.2' }],
    ['container-a', { netns: 'a' }],
    // Who names the host's end means the pod.
    ['v-a', { netns: 'a' }],
    ['port-of-a', { netns: 'a' }],
    ['cni0', { netns: HOST_NETNS }],
  ])('%s is found', (text, origin) => {
    expect(findOrigin(HOST, text)).toEqual(origin);
  });

  it.each(['container', 'net', 'eth1', '10.9.9.9', '__proto__', ''])('%j is nothing', (text) => {
    expect(() => findOrigin(HOST, text)).toThrow(`"${text}" is no network namespace`);
  });

  it('is not guessed where a name means several', () => {
    expect(() => findOrigin(HOST, 'eth0')).toThrow('name the network namespace instead');
    expect(() => findOrigin(HOST, '127.0.0.1')).toThrow(/127\.0\.0\.1/);
  });
});

describe('where it leads', () => {
  it.each([
    ['10.0.0.1', { destination: '10.0.0.1' }],
    ['fd00::1', { destination: 'fd00::1' }],
    ['10.0.0.1:80/tcp', { destination: '10.0.0.1', to: { protocol: 'tcp', port: 80 } }],
    ['[fd00::1]:53/udp', { destination: 'fd00::1', to: { protocol: 'udp', port: 53 } }],
  ])('%s is read', (text, target) => {
    expect(parseTarget(text)).toEqual(target);
  });

  it.each([
    ['', 'is no destination'],
    ['10.0.0.1:80', 'is no destination'],
    ['[10.0.0.1]:80/tcp', 'is no destination'],
    ['fd00::1:53/udp', 'is no destination'],
    ['10.0.0.1:80/sctp', 'neither tcp nor udp'],
    ['10.0.0.1:0/tcp', 'ports are 1 to 65535'],
    ['10.0.0.1:65536/udp', 'ports are 1 to 65535'],
  ])('%j is refused', (text, why) => {
    expect(() => parseTarget(text)).toThrow(why);
  });
});
