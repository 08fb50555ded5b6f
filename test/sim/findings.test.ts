import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Host } from '../../model/host.ts';
import { findingsOf } from '../../sim/findings/all.ts';
import { type HostFinding, extentOf, formatFindings } from '../../sim/findings/finding.ts';
import { lookAt } from '../../sim/findings/look.ts';
import { askAll, unreachablePods } from '../../sim/findings/reachability.ts';
import { BROKEN_HOSTS } from '../broken/all.ts';
import { brokenState } from '../broken/broken-host.ts';
import { called } from '../differential/place.ts';
import { ROUTED, breakageLists, carriedOut } from './hosts.ts';
import { addressOps, applyAll, netnsOps, routeOps, vethOps } from './pods.ts';

const plain = (text: string): string => text;
const PLAIN = { bold: plain, dim: plain, green: plain, red: plain, yellow: plain };

function words(found: readonly HostFinding[]): string[] {
  return found.map(({ netns, object, severity }) => `${severity} ${netns} ${object}`);
}

/** The host, and another one beside it. */
function beside(host: Host): Host {
  return { netns: { ...host.netns, ...called(ROUTED, (name) => `other-${name}`).netns } };
}

describe('findings', () => {
  it('are none about the routed host', () => {
    expect(formatFindings(findingsOf(ROUTED), extentOf(ROUTED), PLAIN)).toEqual([
      '✓ nothing found in 5 netns, 11 links',
    ]);
  });

  it.each(BROKEN_HOSTS)('name the guilty, and nobody else, where $name', (broken) => {
    const { check, guilty, checkNames = guilty, legacyTables } = broken;
    const found = findingsOf(brokenState(broken), legacyTables);
    expect(found.map(({ severity, netns, object }) => [severity, netns, object])).toEqual(
      check === undefined ? [] : [[check, ...checkNames]],
    );
  });

  it('never tell anybody to delete a link whose far end somebody keeps', () => {
    const [broken] = BROKEN_HOSTS.filter(({ name }) => name.includes('has lost its name'));
    if (!broken) throw new Error('there is no such broken host');
    const [finding] = findingsOf(brokenState(broken));
    expect(finding?.mend).toEqual([
      "nsenter --net='/run/netns/node' ip -o link show v-b",
      "nsenter --net='/run/netns/node' lsns -t net -o NETNSID,NS,PID,COMMAND",
    ]);
  });

  it('are none about a router that forwards nothing, and has one node to forward it for', () => {
    const [up, down] = ['u-node', 'eth0'];
    const router = applyAll(ROUTED, [
      ...netnsOps('router'),
      ...vethOps('node', down, '02:00:00:00:0a:01', null, 'router', up, '02:00:00:00:0a:02'),
      ...addressOps('node', down, '192.168.1.2/24'),
      ...addressOps('router', up, '192.168.1.1/24'),
      ...routeOps('node', down, '0.0.0.0/0', '192.168.1.1'),
      { op: 'sysctl.set', netns: 'router', key: 'net/ipv4/ip_forward', value: '0' },
    ]);
    expect(words(findingsOf(router).filter(({ kind }) => kind === 'forwarding'))).toEqual([]);
    // Of the node the pods are one's own.
    const node = applyAll(router, [
      { op: 'sysctl.set', netns: 'node', key: 'net/ipv4/ip_forward', value: '0' },
    ]);
    expect(words(findingsOf(node).filter(({ kind }) => kind === 'forwarding'))).toEqual([
      'error node sysctl net.ipv4.ip_forward',
    ]);
  });

  it('explain every question of a pod that is lost, whatever is broken', () => {
    fc.assert(
      fc.property(breakageLists(), (ops) => {
        const { host } = carriedOut(ROUTED, ops);
        const unreached = unreachablePods(askAll(lookAt(host)));
        const found = findingsOf(host);
        const isSeen = found.some(({ severity }) => severity !== 'note');
        expect(isSeen || unreached.length === 0).toBe(true);
        for (const { evidence } of found) expect(evidence).not.toEqual([]);
      }),
      // Of the hosts at random some lose nothing; of these all lose something.
      { numRuns: 15, examples: BROKEN_HOSTS.slice(0, 5).map(({ ops }) => [ops]) },
    );
  });

  it('are the same about a host beside which there is another with the same addresses', () => {
    fc.assert(
      fc.property(breakageLists(), (ops) => {
        const { host } = carriedOut(ROUTED, ops);
        expect(words(findingsOf(beside(host)))).toEqual(words(findingsOf(host)));
      }),
      { numRuns: 12 },
    );
  });
});
