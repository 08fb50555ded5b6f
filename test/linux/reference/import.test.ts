// Pods of the reference plugins get records of ours while they run, and go by those.
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { ipLink, kernelState, linkNames } from '../executable/kernel-state.ts';
import { recordsOf, runIn } from '../executable/node.ts';
import { BRIDGE, makeReferenceNode } from './chain.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'iptables', 'cni-plugins');

const CHAIN = [
  { ...BRIDGE, mtu: 1400 },
  { type: 'portmap', capabilities: { portMappings: true } },
  { type: 'firewall', backend: 'iptables' },
];

/** The reference's bridge looks for duplicates of its IPv6 address when ADD has ended. */
function awaitAddresses(netns: string): void {
  const end = performance.now() + 5000;
  while (runIn(netns, 'ip', '-6', 'address', 'show', 'tentative') !== '') {
    if (performance.now() > end) throw new Error(`an address in ${netns} stays tentative`);
    Bun.sleepSync(20);
  }
}

describe.skipIf(skip)('an import', () => {
  test('makes records that say what the kernel has, and changes nothing', () => {
    const chain = makeReferenceNode(CHAIN);
    const pods = [chain.add('a'), chain.add('b')];
    // The rules as iptables lists them, which has no counters.
    const state = (): unknown => [
      { ...kernelState(chain.node.netns), nftables: 'as iptables lists it' },
      chain.rules(),
      chain.reserved(),
    ];
    awaitAddresses(chain.node.netns);
    const before = state();
    const { attachments, notImported } = chain.takeOver(pods);
    expect(notImported).toEqual([]);
    expect(attachments.map(({ key }) => key.containerId)).toEqual(['a', 'b']);
    for (const [at, attachment] of attachments.entries()) {
      const netns = pods[at]?.netns ?? '';
      expect(ipLink(netns, 'eth0')).toMatchObject({ address: attachment.podMac, mtu: 1400 });
      expect(ipLink(chain.node.netns, attachment.hostIfname)).toMatchObject({
        address: attachment.hostMac,
        mtu: attachment.mtuBytes,
        master: attachment.bridge,
        port: { hairpin: attachment.hairpin },
      });
      expect(attachment).toMatchObject({ netns, gateway: true, masquerade: false });
    }
    expect(recordsOf(chain.node.dataDir)['address']?.map(({ ip }) => ip)).toEqual([
      '10.7.0.2',
      '10.7.0.3',
      'fd07::2',
      'fd07::3',
    ]);
    expect(state()).toEqual(before);
    // A second one has nothing left to do.
    expect(chain.takeOver(pods)).toMatchObject({ attachments: [], notImported: [] });
  });

  test('what CHECK misses is what only we make: marks, and who made a route', () => {
    const chain = makeReferenceNode(CHAIN);
    const { findings } = chain.takeOver([chain.add('a')]);
    const ofOthers = findings.filter((text) => !/: alias is "|^route default /.test(text));
    expect(ofOthers).toEqual([]);
  });

  test('DEL by the record removes the rest by its names, and of others nothing', () => {
    const chain = makeReferenceNode(CHAIN);
    const other = chain.add('other');
    const before = [linkNames(chain.node.netns), chain.rules(), chain.reserved()];
    const pod = chain.add('pod');
    const { departed } = chain.takeOver([other, pod], ['pod']);
    expect(departed).toMatchObject([{ addresses: ['10.7.0.3', 'fd07::3'] }]);
    expect(departed[0]?.rules.length).toBeGreaterThan(10);
    expect([linkNames(chain.node.netns), chain.rules(), chain.reserved()]).toEqual(before);
    expect(recordsOf(chain.node.dataDir)['attachment']).toMatchObject([{ container_id: 'other' }]);
  });

  test('a pod that is gone is reported, as is one without a result', () => {
    const chain = makeReferenceNode(CHAIN);
    const [gone, unknown] = [chain.add('gone'), chain.add('unknown')];
    chain.node.run('ip', 'link', 'del', gone.result.interfaces[1]?.name ?? '');
    expect(unknown.containerId).toBe('unknown');
    expect(chain.takeOver([gone]).notImported.map(({ what }) => what)).toEqual([
      'podnet/gone/eth0',
      'podnet/unknown/eth0',
      'podnet/unknown/eth0',
    ]);
  });
});
