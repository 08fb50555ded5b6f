/** A network changes from the reference chain to ours while its pods run: no address twice, and nothing is left. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import {
  BRIDGE,
  type ReferenceNode,
  type ReferencePod,
  makeReferenceNode,
} from '../reference/chain.ts';
import { ipAddresses, linkNames } from './kernel-state.ts';
import { errorOf, recordsOf } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'iptables', 'cni-plugins', 'executable');

const CHAIN = [
  BRIDGE,
  { type: 'portmap', capabilities: { portMappings: true } },
  { type: 'firewall', backend: 'iptables' },
];

/** The one entry that takes the place of the chain. */
function configOf({ node, hostLocal }: ReferenceNode): Record<string, unknown> {
  return node.config({
    ...BRIDGE,
    type: 'cube-cni',
    ipam: {
      type: 'cube-ipam',
      dataDir: join(hostLocal, '..'),
      ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]],
    },
  });
}

/** libcni's cache of what the chain answered. */
function writeResults({ node, hostLocal }: ReferenceNode, pods: readonly ReferencePod[]): string {
  const folder = join(node.folder, 'results');
  mkdirSync(folder);
  const ipam = { type: 'host-local', dataDir: join(hostLocal, '..') };
  const plugins = CHAIN.map((plugin, at) => (at === 0 ? { ...plugin, ipam } : plugin));
  const conflist = { cniVersion: '1.0.0', name: 'podnet', plugins };
  for (const { containerId, ifname, result } of pods) {
    const entry = {
      kind: 'cniCacheV1',
      containerId,
      config: Buffer.from(JSON.stringify(conflist)).toString('base64'),
      ifName: ifname,
      networkName: 'podnet',
      result,
    };
    writeFileSync(join(folder, `podnet-${containerId}-${ifname}`), JSON.stringify(entry));
  }
  return folder;
}

/** The rules that name a container, or that a chain of one of its addresses has. */
function rulesOf(chain: ReferenceNode, { containerId, result }: ReferencePod): string[] {
  const addresses = result.ips.map(({ address }) => address.split('/')[0] ?? '');
  return chain
    .rules()
    .filter(
      (rule) =>
        rule.includes(`id: \\"${containerId}\\"`) ||
        addresses.some((ip) => rule.includes(`${ip}/`) || rule.includes(`${ip}:`)),
    );
}

describe.skipIf(skip)('after the switch', () => {
  test.each<[string, (pod: ReferencePod) => { netns: string }]>([
    ['with the netns', ({ netns }) => ({ netns })],
    ['without the netns', () => ({ netns: '' })],
  ])('pods that nobody imported go by their result, %s', (_how, where) => {
    const chain = makeReferenceNode(CHAIN);
    const { node } = chain;
    const [a, b] = [chain.add('a'), chain.add('b')];
    const config = configOf(chain);
    const before = rulesOf(chain, b);
    const own = node.add({ netns: node.addPod(), containerId: 'c', config });
    expect(own.ips.map(({ address }) => address)).toEqual(['10.7.0.4/24', 'fd07::4/64']);
    node.del({ ...where(a), containerId: 'a', config: { ...config, prevResult: a.result } });
    expect(linkNames(a.netns)).toEqual([]);
    expect(chain.reserved()).toEqual(['10.7.0.3', 'fd07::3']);
    expect(rulesOf(chain, a)).toEqual([]);
    // Nothing of the others was touched.
    expect(rulesOf(chain, b)).toEqual(before);
    expect(ipAddresses(b.netns, 'eth0')).toEqual(['10.7.0.3/24', 'fd07::3/64']);
    node.del({ ...where(b), containerId: 'b', config: { ...config, prevResult: b.result } });
    node.del({ containerId: 'c', config });
    // Again, as runtimes do.
    node.del({ containerId: 'a', config: { ...config, prevResult: a.result } });
    expect(chain.reserved()).toEqual([]);
    expect([...rulesOf(chain, a), ...rulesOf(chain, b)]).toEqual([]);
    // The bridge is the reference's, which never removes it.
    expect(linkNames(node.netns)).toEqual(['cni0']);
    expect(recordsOf(node.dataDir)).toMatchObject({ attachment: [], address: [], usage: [] });
    expect(node.run('nft', 'list', 'tables')).not.toContain('cube-cni');
  });

  test('what host-local has handed out is not handed out again', () => {
    const chain = makeReferenceNode(CHAIN);
    const { node } = chain;
    const theirs = ['a', 'b', 'c'].flatMap((id) => chain.add(id).result.ips);
    const ours = ['d', 'e', 'f'].flatMap(
      (containerId) => node.add({ netns: node.addPod(), containerId, config: configOf(chain) }).ips,
    );
    const all = [...theirs, ...ours].map(({ address }) => address);
    expect(new Set(all).size).toBe(12);
  });

  test('imported pods have records: CHECK knows them, and DEL needs nothing else', () => {
    const chain = makeReferenceNode(CHAIN);
    const { node } = chain;
    const pods = [chain.add('a'), chain.add('b')];
    const results = writeResults(chain, pods);
    const config = configOf(chain);
    const file = join(node.folder, 'net.json');
    writeFileSync(file, JSON.stringify(config));
    const tried = node.cli(['import', '-c', file, '--results', results, '--dry-run']);
    expect(tried).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^2 attachments would be taken over$/m),
    });
    expect(existsSync(join(node.dataDir, 'state.db'))).toBe(false);
    const imported = node.cli(['import', '-c', file, '--results', results]);
    expect(imported).toMatchObject({ status: 0, stderr: '' });
    expect(imported.stdout).toMatch(/^podnet\/a\/eth0 +10\.7\.0\.2\/24, fd07::2\/64 +veth\w+$/m);
    expect(imported.stdout).toMatch(/^2 attachments taken over$/m);
    expect(node.cli(['import', '-c', file, '--results', results]).stdout).toMatch(
      /^0 attachments/m,
    );
    expect(node.cli(['ipam', 'list', '-c', file]).stdout).toMatch(/^10\.7\.0\.2 +used +a +eth0/m);
    for (const { containerId, netns, result } of pods)
      expect(
        node.call('CHECK', { netns, containerId, config: { ...config, prevResult: result } }),
      ).toMatchObject({ status: 0, stdout: '' });
    const own = node.add({ netns: node.addPod(), containerId: 'c', config });
    expect(own.ips[0]?.address).toBe('10.7.0.4/24');
    for (const containerId of ['a', 'b', 'c']) node.del({ containerId, config });
    expect(chain.reserved()).toEqual([]);
    for (const pod of pods) {
      expect(rulesOf(chain, pod)).toEqual([]);
      expect(linkNames(pod.netns)).toEqual([]);
    }
    expect(linkNames(node.netns)).toEqual(['cni0']);
  });

  test('GC removes imported pods that are not valid any more', () => {
    const chain = makeReferenceNode(CHAIN);
    const { node } = chain;
    const pods = [chain.add('a'), chain.add('b')] as const;
    const config = { ...configOf(chain), cniVersion: '1.1.0' };
    const file = join(node.folder, 'net.json');
    writeFileSync(file, JSON.stringify(config));
    node.cli(['import', '-c', file, '--results', writeResults(chain, pods)]);
    const valid = [{ containerID: 'b', ifname: 'eth0' }];
    expect(
      node.call('GC', { config: { ...config, 'cni.dev/valid-attachments': valid } }),
    ).toMatchObject({ status: 0, stdout: '' });
    expect(chain.reserved()).toEqual(['10.7.0.3', 'fd07::3']);
    expect(linkNames(pods[0].netns)).toEqual([]);
    expect(ipAddresses(pods[1].netns, 'eth0')).toEqual(['10.7.0.3/24', 'fd07::3/64']);
    expect(rulesOf(chain, pods[0])).toEqual([]);
  });

  test('an address is given back by its name', () => {
    const chain = makeReferenceNode(CHAIN);
    const { node } = chain;
    const config = configOf(chain);
    const file = join(node.folder, 'net.json');
    writeFileSync(file, JSON.stringify(config));
    const netns = node.addPod();
    node.add({ netns, containerId: 'c', config });
    expect(node.cli(['ipam', 'release', '10.7.0.2', '-c', file])).toMatchObject({
      status: 0,
      stdout: 'released 10.7.0.2: attachment podnet/c/eth0 was removed\n',
    });
    expect(linkNames(netns)).toEqual([]);
    expect(node.cli(['ipam', 'list', '-c', file]).stdout).toMatch(/^10\.7\.0\.2 +released +-/m);
    expect(node.cli(['ipam', 'release', '10.7.0.2', '-c', file]).stdout).toBe(
      'released 10.7.0.2: it can be handed out again at once\n',
    );
    expect(node.cli(['ipam', 'release', '10.7.0.2', '-c', file])).toMatchObject({ status: 1 });
    expect(JSON.parse(node.cli(['ipam', 'list', '-c', file, '--json']).stdout)).toMatchObject({
      network: 'podnet',
      addresses: [{ ip: 'fd07::2', state: 'released' }],
    });
    expect(
      errorOf(node.call('CHECK', { netns, config: { ...config, prevResult: {} } })),
    ).toMatchObject({ code: 3 });
  });
});
