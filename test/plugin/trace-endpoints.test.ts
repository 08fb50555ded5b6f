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

type Known = NonNullable<Parameters<typeof findOrigin>[2]>;

function container(id: string, netns: string | undefined): Known['containers'][number] {
  return { id, folder: `/run/x/${id}`, netns };
}

function known(...containers: Known['containers']): Known {
  return { containers, lookedIn: ['/run/x', '/run/y (EACCES)'] };
}

describe('a container that runtimes know', () => {
  it('is its netns, also when several are in one', () => {
    expect(findOrigin(HOST, '6f1c9a', known(container('6f1c9a77', 'b')))).toEqual({ netns: 'b' });
    const both = known(container('6f1c9a77', 'b'), container('6f1c9a78', 'b'));
    expect(findOrigin(HOST, '6f1c9a', both)).toEqual({ netns: 'b' });
  });

  it('is not guessed among several, nor beside a link', () => {
    const both = known(container('6f1c9a77', 'a'), container('6f1c9a78', 'b'));
    expect(() => findOrigin(HOST, '6f1c9a', both)).toThrow(
      '"6f1c9a" is the container 6f1c9a77 (/run/x/6f1c9a77) and the container 6f1c9a78 (/run/x/6f1c9a78): ' +
        'name the network namespace instead',
    );
    expect(() => findOrigin(HOST, 'v-a', known(container('v-a', 'b')))).toThrow(
      'the container v-a (/run/x/v-a) and a link',
    );
  });

  it('that has ended is told, and where none was found', () => {
    for (const netns of [undefined, 'gone since'])
      expect(() => findOrigin(HOST, '6f1c9a', known(container('6f1c9a77', netns)))).toThrow(
        'the container 6f1c9a77 (/run/x/6f1c9a77) has no process that runs',
      );
    expect(() => findOrigin(HOST, '6f1c9a', known())).toThrow(
      'files of containers were looked for in /run/x, /run/y (EACCES)',
    );
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
