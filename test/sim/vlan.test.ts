import { describe, expect, it } from 'vitest';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { vlan } from '../../model/vlan.ts';
import { probe } from '../../sim/probe.ts';
import { formatTrace, formatVerdict } from '../../sim/trace.ts';
import { makeWorld } from '../../sim/world.ts';
import { access, memberOps, reachedIn, vlanHost } from './vlan-pods.ts';

const ALL = {
  node: ['a', 'b', 'c'],
  a: ['node', 'b', 'c'],
  b: ['node', 'a', 'c'],
  c: ['node', 'a', 'b'],
};

describe('a bridge that filters VLANs (K-6.6)', () => {
  it('keeps nothing apart while everybody is in its default VLAN', () => {
    expect(reachedIn(vlanHost([]))).toEqual(ALL);
  });

  it('forwards only between members of the VLAN', () => {
    const ops = [...memberOps('a', [access(100)]), ...memberOps('b', [access(100)])];
    expect(reachedIn(vlanHost(ops))).toEqual({ node: ['c'], a: ['b'], b: ['a'], c: ['node'] });
  });

  it('lets in what another VLAN lets out, each way by its own', () => {
    const ops = [
      ...memberOps('a', [access(10), vlan(20, { untagged: true })]),
      ...memberOps('b', [access(20), vlan(10, { untagged: true })]),
    ];
    expect(reachedIn(vlanHost(ops))).toEqual({ node: ['c'], a: ['b'], b: ['a'], c: ['node'] });
  });

  it('gives frames their tag where the VLAN leaves with one, which a netns has no link for', () => {
    const ops = [...memberOps('a', [access(10)]), ...memberOps('b', [vlan(10), access(20)])];
    const world = makeWorld(vlanHost(ops));
    expect(reachedIn(world.host)).toEqual({ node: ['c'], a: [], b: [], c: ['node'] });
    const trace = probe(world, { netns: 'a', destination: parseIp('10.244.1.3') });
    expect(formatTrace(trace)).toContain(
      'the frame has the tag of VLAN 10, for which b has no link',
    );
  });

  it('takes no frame of a port that has no VLAN for it', () => {
    const world = makeWorld(vlanHost(memberOps('a', [vlan(10)])));
    const trace = probe(world, { netns: 'a', destination: parseIp('10.244.1.3') });
    expect(formatTrace(trace)).toContain('port v-a has no VLAN for frames without a tag');
    expect(formatVerdict(trace.verdict)).toContain('NEIGH_FAILED');
  });

  it('is as good as no filter while it does not filter', () => {
    const host = vlanHost([
      ...memberOps('a', [access(100)]),
      { op: 'link.set', netns: 'node', ifname: 'cni0' as Ifname, set: { vlanFiltering: false } },
    ]);
    expect(reachedIn(host)).toEqual(ALL);
  });
});
