/** GC beside what is not its own, after records were lost, and when something fails. */
import { rmSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { kernelState, linkNames, mapped, masqueraded } from './kernel-state.ts';
import { NO_RECORDS, type Node, addressOf, makeNode, recordsOf, run } from './node.ts';

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
});
