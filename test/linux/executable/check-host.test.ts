/** `cube-cni check` without a container: a node with a pod, its records and its links, and a saved host. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { HostFinding } from '../../../sim/findings/finding.ts';
import { requirement } from '../../requirements.ts';
import { type Answer, type Node, makeNode } from './node.ts';

interface Checked {
  readonly node: Node;
  readonly pod: string;
  readonly config: string;
  /** What is found on the node and its pod; others that run at the same time have netns of their own. */
  readonly found: () => readonly HostFinding[];
}

function makeChecked(): Checked {
  const node = makeNode();
  const pod = node.addPod();
  const config = join(node.folder, 'net.json');
  writeFileSync(config, JSON.stringify(node.config()));
  node.add({ netns: pod });
  const found = (): readonly HostFinding[] => {
    const { stdout, stderr } = node.cli(['check', '--config', config, '--json']);
    expect(stderr).toBe('');
    const { findings } = JSON.parse(stdout) as { readonly findings: readonly HostFinding[] };
    const own = ['host', pod.replace('/run/netns/', '')];
    return findings.filter(({ netns }) => own.includes(netns));
  };
  return { node, pod, config, found };
}

describe.skipIf(requirement('root', 'iproute2', 'executable'))('cube-cni check of a host', () => {
  test('compares records and links', () => {
    const { node, pod, found } = makeChecked();
    expect(found()).toEqual([]);
    const veth = node.run('ip', '-o', 'link', 'show', 'type', 'veth').split(': ')[1];
    node.run('ip', 'link', 'del', `${veth?.split('@')[0]}`);
    expect(found()).toMatchObject([
      {
        kind: 'record-without-link',
        object: 'record podnet/pod-a/eth0',
        evidence: [`finished, pod in ${pod}`, 'has 10.7.0.2/24'],
      },
    ]);
    const release = ['ipam', 'release', '10.7.0.2', '--config', join(node.folder, 'net.json')];
    expect(node.cli(release)).toMatchObject({ status: 0 });
    node.run('ip', 'link', 'add', 'left', 'type', 'veth', 'peer', 'name', 'over');
    node.run('ip', 'link', 'set', 'left', 'alias', 'cube-cni podnet/gone/eth0');
    const [finding, ...others] = found();
    expect(finding).toMatchObject({ kind: 'link-without-record', object: 'link left' });
    expect(others).toEqual([]);
    for (const command of finding?.mend ?? []) node.run('sh', '-c', command);
    expect(found()).toEqual([]);
  });

  test('does the same on a saved host, of which it says all with its exit status', () => {
    const { node, pod } = makeChecked();
    const file = join(node.folder, 'host.json');
    const checkSaved = (...flags: readonly string[]): Answer => {
      const saved = node.cli(['snapshot', pod.replace('/run/netns/', '')]);
      writeFileSync(file, saved.stdout);
      return node.cli(['check', '--snapshot', file, ...flags]);
    };
    expect(checkSaved()).toMatchObject({
      status: 0,
      stdout: '✓ nothing found in 2 netns, 3 links\n',
      stderr: '',
    });
    // Without a way on there is nothing to forward.
    node.run('sysctl', '-q', '-w', 'net.ipv4.ip_forward=0');
    expect(checkSaved()).toMatchObject({ status: 0 });
    node.run('ip', 'link', 'add', 'up0', 'up', 'type', 'veth', 'peer', 'name', 'up1');
    node.run('ip', 'link', 'set', 'up1', 'up');
    node.run('ip', 'address', 'add', '192.168.77.1/24', 'dev', 'up0');
    const answer = checkSaved();
    expect(answer).toMatchObject({ status: 1, stderr: '' });
    expect(answer.stdout).toBe(
      [
        'error    netns host: sysctl net.ipv4.ip_forward is 0, and pods have this netns for their gateway',
        '  seen   netns host: net.ipv4.ip_forward = 0',
        `         netns ${pod.replace('/run/netns/', '')}: default via 10.7.0.1 dev eth0`,
        '  mend   sysctl -w net.ipv4.ip_forward=1',
        '1 error in 2 netns, 5 links',
        '',
      ].join('\n'),
    );
    expect(JSON.parse(checkSaved('--json').stdout)).toMatchObject({
      netns: 2,
      links: 5,
      findings: [{ severity: 'error', kind: 'forwarding', netns: 'host' }],
    });
  });

  test.each([
    [['--snapshot', '/nowhere.json'], '/nowhere.json'],
    [['--snapshot', '-', '--config', '-'], 'give --snapshot or --config, not both'],
    [['--container-id', 'a'], 'missing: --config, --netns'],
    [['--netns', 'a', '--config', 'a'], 'missing: --container-id'],
    [['-n', 'a', '-i', 'a', '-c', 'a', '--json'], 'are for a whole host'],
    [['--nonsense'], "unknown option '--nonsense'"],
  ])('says what is wrong about %j', (args, text) => {
    expect(makeNode().cli(['check', ...args])).toMatchObject({
      status: 2,
      stdout: '',
      stderr: expect.stringContaining(text),
    });
  });
});
