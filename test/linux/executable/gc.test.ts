/** GC beside what is not its own, after records were lost, and when something fails. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { kernelState, linkNames, mapped, masqueraded } from './kernel-state.ts';
import { NO_RECORDS, type Node, addressOf, errorOf, makeNode, recordsOf, run } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

const SILENT = { status: 0, stdout: '', stderr: '' };

type Changes = Readonly<Record<string, unknown>>;

/** All that leaves something of an attachment on the host. */
function configOf(node: Node, changes: Changes = {}): Record<string, unknown> {
  return node.config({
    cniVersion: '1.1.0',
    isDefaultGateway: true,
    macspoofchk: true,
    ipspoofchk: true,
    ipam: { type: 'cube-ipam', ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]] },
    ...changes,
  });
}

/** GC that knows these containers; `changes` are other keys of the configuration. */
function gc(node: Node, valid: readonly string[], changes: Changes = {}) {
  return node.call('GC', {
    config: configOf(node, {
      'cni.dev/valid-attachments': valid.map((containerID) => ({ containerID, ifname: 'eth0' })),
      ...changes,
    }),
    env: { CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '' },
  });
}

function add(node: Node, containerId: string, changes: Changes = {}) {
  const netns = node.addPod();
  return { netns, result: node.add({ netns, containerId, config: configOf(node, changes) }) };
}

/** The host, but for forwarding, which stays on. */
function view(node: Node): unknown {
  return { ...kernelState(node.netns), forwarding: 'as it is' };
}

function containers(node: Node): string[] {
  return (recordsOf(node.dataDir)['attachment'] ?? [])
    .map((row) => String(row['container_id']))
    .toSorted();
}

/** Links, addresses, a bridge with a port, and rules of somebody else, some of them named as ours might be. */
function addForeign(node: Node): void {
  const commands = [
    'link add br-foreign up type bridge',
    'link add veth0123 up master br-foreign type veth peer name veth4567',
    'link set veth0123 alias podnet/a/eth0',
    'link add dummy0 up type veth peer name dummy1',
    'link set dummy0 alias cube-cni-2',
    'address add 192.0.2.1/24 dev dummy0',
  ];
  for (const command of commands) node.run('ip', ...command.split(' '));
  const rules = `
    table inet foreign {
      map known { type ipv4_addr : verdict
        elements = { 10.7.0.2 comment "podnet/a/eth0" : accept }
      }
      set seen {
        type ipv4_addr
        elements = { 10.7.0.2 comment "podnet/a/eth0" }
      }
      chain forward {
        type filter hook forward priority 0; policy accept;
        ip saddr vmap @known
      }
    }
    table bridge foreign {
      chain c {
        ether type ip accept
      }
    }`;
  node.run('sh', '-c', `nft -f - <<'END'\n${rules}\nEND`);
}

/** An IPAM plugin that gives a container the address of its number, and does not always take it back. */
const FICKLE = `#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
ADD) echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.7.0.1'$CNI_CONTAINERID'/24", "gateway": "10.7.0.1"}]}' ;;
DEL)
  [ -e "$CNI_PATH/keep-$CNI_CONTAINERID" ] || exit 0
  echo '{"cniVersion": "1.1.0", "code": 77, "msg": "fickle keeps '$CNI_CONTAINERID'"}'
  exit 1
  ;;
esac
`;

describe.skipIf(skip)('GC', () => {
  test('removes all of what is not valid, and leaves foreign things alone', () => {
    const node = makeNode();
    addForeign(node);
    const before = view(node);
    const b = add(node, 'b');
    const withB = view(node);
    add(node, 'a');
    add(node, 'c');
    expect(gc(node, ['b'])).toMatchObject(SILENT);
    expect(view(node)).toEqual(withB);
    expect(containers(node)).toEqual(['b']);
    const { address } = recordsOf(node.dataDir);
    expect(address?.map(({ ip }) => ip).toSorted()).toEqual(['10.7.0.2', 'fd07::2']);
    const check = { ...configOf(node), prevResult: b.result };
    expect(node.call('CHECK', { netns: b.netns, containerId: 'b', config: check })).toMatchObject(
      SILENT,
    );
    expect(gc(node, [])).toMatchObject(SILENT);
    expect(view(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('removes what is left of a pod whose netns is gone', () => {
    const node = makeNode();
    add(node, 'kept');
    const before = view(node);
    const { netns } = add(node, 'gone');
    run('ip', 'netns', 'del', netns.replace('/run/netns/', ''));
    expect(mapped(node.netns)).toContain('10.7.0.3');
    expect(gc(node, ['kept'])).toMatchObject(SILENT);
    expect(view(node)).toEqual(before);
    expect(containers(node)).toEqual(['kept']);
  });

  test('removes what is left of pods whose records were lost, unless they are valid', () => {
    const node = makeNode();
    addForeign(node);
    const before = view(node);
    const other = configOf(node, {
      name: 'other',
      bridge: 'other0',
      ipam: { type: 'cube-ipam', subnet: '10.8.0.0/24' },
    });
    node.add({ netns: node.addPod(), containerId: 'o', config: other });
    const b = add(node, 'b');
    const rest = view(node);
    add(node, 'a');
    const { netns } = add(node, 'c');
    run('ip', 'netns', 'del', netns.replace('/run/netns/', ''));
    rmSync(node.dataDir, { recursive: true });
    expect(gc(node, ['b'])).toMatchObject(SILENT);
    expect(view(node)).toEqual(rest);
    // What is valid still has its addresses for itself.
    expect(addressOf(add(node, 'd').result)).not.toBe(addressOf(b.result));
    expect(gc(node, [])).toMatchObject(SILENT);
    expect(linkNames(node.netns)).toContain('other0');
    expect(mapped(node.netns)).toEqual(['10.8.0.2']);
    expect(masqueraded(node.netns)).toEqual(['10.8.0.2']);
    node.del({ containerId: 'o', config: other });
    expect(view(node)).toEqual(before);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });

  test('with an empty list leaves neither bridge nor tables of pods whose records were lost', () => {
    const node = makeNode();
    const before = view(node);
    add(node, 'a');
    add(node, 'b');
    rmSync(node.dataDir, { recursive: true });
    expect(gc(node, [])).toMatchObject(SILENT);
    expect(view(node)).toEqual(before);
  });

  test('goes on when something fails, tells all of it, and may be called again', () => {
    const node = makeNode();
    const before = view(node);
    const plugin = join(node.folder, 'fickle');
    writeFileSync(plugin, FICKLE, { mode: 0o755 });
    const config = configOf(node, { ipam: { type: 'fickle', subnet: '10.7.0.0/24' } });
    const env = { CNI_PATH: node.folder };
    for (const containerId of ['1', '2', '3', '4'])
      node.add({ netns: node.addPod(), containerId, config, env });
    const orphaned = node.run(
      'ip',
      'link',
      'add',
      'lost0',
      'type',
      'veth',
      'peer',
      'name',
      'lost1',
    );
    expect(orphaned).toBe('');
    node.run('ip', 'link', 'set', 'lost0', 'alias', 'cube-cni podnet/lost/eth0');
    for (const containerId of ['1', '3'])
      writeFileSync(join(node.folder, `keep-${containerId}`), '');
    const call = {
      config: {
        ...config,
        'cni.dev/valid-attachments': [{ containerID: '4', ifname: 'eth0' }],
      },
      env: { CNI_PATH: node.folder, CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '' },
    };
    const error = errorOf(node.call('GC', call));
    expect(error).toMatchObject({
      cniVersion: '1.1.0',
      code: 77,
      msg: expect.stringMatching(/^GC of network podnet: .*keeps 1/),
      details: expect.stringMatching(/keeps 1[^]*keeps 3/),
    });
    // What failed keeps its record, so that a later call can do it; the rest went, and what nobody has recorded too.
    expect(containers(node)).toEqual(['1', '3', '4']);
    expect(linkNames(node.netns)).not.toContain('lost0');
    for (const containerId of ['1', '3']) rmSync(join(node.folder, `keep-${containerId}`));
    expect(node.call('GC', call)).toMatchObject(SILENT);
    expect(containers(node)).toEqual(['4']);
    expect(linkNames(node.netns)).toHaveLength(2);
    node.del({ containerId: '4', config, env });
    expect(view(node)).toEqual(before);
  });

  test('while a pod is being added leaves that alone, and says so', async () => {
    const node = makeNode();
    add(node, 'old');
    const lock = Bun.spawn(
      ['flock', '--no-fork', join(node.dataDir, 'lock'), 'sh', '-c', 'echo held; exec sleep 60'],
      { stdout: 'pipe' },
    );
    onTestFinished(() => lock.kill('SIGKILL'));
    await lock.stdout.getReader().read();
    const running = node.start('ADD', {
      netns: node.addPod(),
      containerId: 'new',
      config: configOf(node),
    });
    const end = performance.now() + 5000;
    while (!containers(node).includes('new')) {
      if (performance.now() > end) throw new Error('the record was never written');
      await Bun.sleep(2);
    }
    const config = configOf(node, { 'cni.dev/valid-attachments': [] });
    const collected = node.start('GC', { config });
    await Bun.sleep(100);
    lock.kill('SIGKILL');
    const answers = await Promise.all([running.answer, collected.answer]);
    expect(answers[0]).toMatchObject({ status: 0 });
    expect(errorOf(answers[1])).toMatchObject({
      code: 11,
      msg: `GC of network podnet: attachment podnet/new/eth0 is being added by process ${running.pid}`,
    });
    expect(containers(node)).toEqual(['new']);
    expect(mapped(node.netns)).toEqual(['10.7.0.3', 'fd07::3']);
  });
});
