/** What `check` says of hosts on which other software has networks of its own: only what is so. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { HOST_NETNS, type Host, getNetns, withLink, withNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Link } from '../../model/link.ts';
import { parseMac } from '../../model/mac.ts';
import type { Chain, ChainHook, Rule, Statement } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { makePolicyRule } from '../../model/policy-rule.ts';
import {
  type ForeignSettings,
  networkdFindings,
  parseNetworkd,
} from '../../plugin/check/networkd.ts';
import { withChosenMacs } from '../../plugin/process/bridge-macs.ts';
import { readNetworkd } from '../../plugin/process/networkd-files.ts';
import { withoutMentions } from '../../plugin/process/whole-host.ts';
import { findingsOf } from '../../sim/findings/all.ts';
import { addressOps, bridgeOps, routeOps, vethOps } from '../sim/pods.ts';
import { afterOps, attachPod, makeMachine, plainHost } from './machine.ts';

const PODS = ['/run/netns/pod0', '/run/netns/pod1', '/run/docker/netns/1f', '/run/docker/netns/2e'];
const [POD0 = '', POD1 = '', FIRST = '', SECOND = ''] = PODS;

/** A host with a way out, two pods of this plugin, and nothing else yet. */
function podHost(): Host {
  const uplink = [
    ...addressOps(HOST_NETNS, 'uplink', '192.168.1.10/24'),
    ...routeOps(HOST_NETNS, 'uplink', '0.0.0.0/0', '192.168.1.1'),
  ];
  const up: Op = { op: 'link.set', netns: HOST_NETNS, ifname: 'lo' as Ifname, set: { up: true } };
  const machine = makeMachine(afterOps(plainHost('without link-local', PODS), [up, ...uplink]));
  const raw = {
    cniVersion: '1.0.0',
    name: 'net',
    type: 'cube-cni',
    bridge: 'cni0',
    isDefaultGateway: true,
    ipMasq: true,
    ipam: { type: 'cube-ipam', ranges: [[{ subnet: '10.7.0.0/24' }]] },
  };
  attachPod(machine, raw, 0);
  attachPod(machine, raw, 1);
  return machine.backend.host();
}

/** A bridge as Docker and podman make them, with a container in each of these netns. */
function containerOps(bridge: string, subnet: number, netns: readonly string[]): Op[] {
  return [
    ...bridgeOps(HOST_NETNS, bridge, `02:42:00:00:00:${subnet}`),
    ...addressOps(HOST_NETNS, bridge, `172.${subnet}.0.1/16`),
    ...netns.flatMap((name, index): Op[] => [
      ...vethOps(
        HOST_NETNS,
        `veth${subnet}${index}`,
        `02:00:00:00:${subnet}:0${index}`,
        bridge,
        name,
        'eth0',
        `02:42:ac:${subnet}:00:0${index + 2}`,
      ),
      ...addressOps(name, 'eth0', `172.${subnet}.0.${index + 2}/16`),
      ...routeOps(name, 'eth0', '0.0.0.0/0', `172.${subnet}.0.1`),
    ]),
  ];
}

function rule(...statements: readonly Statement[]): Rule {
  return { statements, comment: '' };
}

function opaque(expression: string): Statement {
  return { kind: 'opaque', expression };
}

function baseChain(name: string, hook: ChainHook, ...rules: readonly Rule[]): Chain {
  return { name, hook, rules };
}

/** The rules that iptables has for Docker, in whose FORWARD the policy is drop. */
function withIptables(host: Host, ...rules: readonly Rule[]): Host {
  const netns = getNetns(host, HOST_NETNS);
  const forward = baseChain(
    'FORWARD',
    { type: 'filter', hook: 'forward', priority: 0, policy: 'drop' },
    ...rules,
  );
  const postrouting = baseChain(
    'POSTROUTING',
    { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
    rule(opaque('match MASQUERADE')),
  );
  const nftables = {
    ...netns.nftables,
    'ip filter': { family: 'ip' as const, name: 'filter', chains: { FORWARD: forward }, sets: {} },
    'ip nat': {
      family: 'ip' as const,
      name: 'nat',
      chains: { POSTROUTING: postrouting },
      sets: {},
    },
  };
  return withNetns(host, HOST_NETNS, { ...netns, nftables });
}

const ACCEPT: Statement = { kind: 'verdict', verdict: 'accept' };

function docker(): Host {
  return afterOps(podHost(), [
    ...containerOps('docker0', 17, []),
    ...containerOps('br-4f', 18, [FIRST, SECOND]),
  ]);
}

describe('a host beside Docker', () => {
  it('has nothing that is found, whatever its rules say that is not understood', () => {
    expect(findingsOf(docker())).toEqual([]);
    expect(findingsOf(withIptables(docker(), rule(opaque('jump DOCKER-USER'))))).toEqual([]);
  });

  it("has a policy that drops what other pods send, where Docker's rules are for its own links", () => {
    const own = ['docker0', 'br-4f'].flatMap((link): Rule[] =>
      (['iifname', 'oifname'] as const).map((field) =>
        rule({ kind: 'match', field, negate: false, value: link as Ifname }, ACCEPT),
      ),
    );
    const found = findingsOf(withIptables(docker(), ...own));
    expect(found).toMatchObject([
      {
        severity: 'error',
        kind: 'reachability',
        netns: HOST_NETNS,
        object: 'chain ip filter FORWARD',
        mend: ['nft -a list chain ip filter FORWARD'],
      },
    ]);
    expect(found[0]?.evidence[0]).toContain(`netns ${POD0}: 10.7.0.2 asks 192.0.2.1`);
  });
});

describe('a host beside podman', () => {
  const MAC = '02:00:00:00:89:00';

  function podman(): Host {
    const host = afterOps(podHost(), containerOps('podman1', 89, [FIRST, SECOND]));
    const bridge = getNetns(host, HOST_NETNS).links['podman1'];
    if (bridge?.kind !== 'bridge') throw new Error('there is no podman1');
    return withLink(host, HOST_NETNS, { ...bridge, mac: parseMac(MAC), macChosen: false });
  }

  it('has a bridge that follows its ports', () => {
    expect(findingsOf(podman())).toMatchObject([
      { severity: 'warning', kind: 'bridge-mac', object: 'link podman1' },
    ]);
  });

  it('has one that does not, where sysfs says that its MAC address was chosen', () => {
    const sysfs = folderOf({
      'class/net/podman1/addr_assign_type': '3\n',
      'class/net/podman1/address': `${MAC}\n`,
    });
    expect(findingsOf(withChosenMacs(podman(), sysfs))).toEqual([]);
    const others = folderOf({
      'class/net/podman1/addr_assign_type': '3\n',
      'class/net/podman1/address': '02:00:00:00:00:99\n',
    });
    expect(withChosenMacs(podman(), others)).toEqual(podman());
  });
});

/** A folder with these files, which goes when the test ends. */
function folderOf(files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'cube-check-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  return folder;
}

const RUNNING = { 'proc/1/comm': 'systemd\n', 'proc/77/comm': 'systemd-network\n' };

function settings(files: Readonly<Record<string, string>>): ForeignSettings {
  return parseNetworkd(readNetworkd(folderOf({ ...RUNNING, ...files })) ?? ['it does not run']);
}

describe('the settings of systemd-networkd', () => {
  it('are yes where nobody says otherwise', () => {
    expect(settings({})).toEqual({
      ManageForeignRoutes: true,
      ManageForeignRoutingPolicyRules: true,
    });
    expect(
      settings({ 'etc/systemd/networkd.conf': '[DHCPv4]\nManageForeignRoutes=no\n' }),
    ).toMatchObject({ ManageForeignRoutes: true });
  });

  it('are those of the main file, and then of drop-ins by their names', () => {
    const main = '[Network]\n# ManageForeignRoutes=yes\nManageForeignRoutes = no\n';
    expect(settings({ 'usr/lib/systemd/networkd.conf': main })).toEqual({
      ManageForeignRoutes: false,
      ManageForeignRoutingPolicyRules: true,
    });
    const both = '[Network]\nManageForeignRoutes=0\nManageForeignRoutingPolicyRules=off\n';
    const later = '[Network]\nManageForeignRoutes=true\n';
    expect(
      settings({
        'etc/systemd/networkd.conf': main,
        'run/systemd/networkd.conf.d/10-both.conf': both,
        'etc/systemd/networkd.conf.d/20-later.conf': later,
        'etc/systemd/networkd.conf.d/README': both,
      }),
    ).toEqual({ ManageForeignRoutes: true, ManageForeignRoutingPolicyRules: false });
  });

  it('are of a drop-in in the first folder that has its name', () => {
    expect(
      settings({
        'etc/systemd/networkd.conf.d/10-a.conf': '[Network]\nManageForeignRoutes=no\n',
        'usr/lib/systemd/networkd.conf.d/10-a.conf': '[Network]\nManageForeignRoutes=yes\n',
      }),
    ).toMatchObject({ ManageForeignRoutes: false });
  });

  it('are not looked for where it does not run', () => {
    expect(readNetworkd(folderOf({ 'proc/1/comm': 'systemd\n' }))).toBeUndefined();
  });

  it('are found where there is what they endanger', () => {
    const on = parseNetworkd([]);
    expect(networkdFindings(plainHost(), on)).toEqual([]);
    const kinds = (host: Host, said = on): string[] =>
      networkdFindings(host, said).map(({ object }) => object);
    expect(kinds(podHost())).toEqual(['networkd setting ManageForeignRoutes']);
    expect(kinds(podHost(), parseNetworkd(['[Network]\nManageForeignRoutes=n']))).toEqual([]);
    const ruled = afterOps(plainHost(), [
      {
        op: 'rule.add',
        netns: HOST_NETNS,
        rule: makePolicyRule({ family: 4, priority: 100, table: 77, protocol: 3 }),
      },
    ]);
    expect(kinds(ruled)).toEqual(['networkd setting ManageForeignRoutingPolicyRules']);
    expect(networkdFindings(ruled, on)[0]?.evidence).toEqual([
      'netns host: pref 100 table 77 proto 3',
    ]);
  });
});

it('knows nothing of a netns that went while the host was read', () => {
  const host = afterOps(podHost(), [
    ...containerOps('br-4f', 18, [FIRST]),
    {
      op: 'link.add',
      netns: FIRST,
      link: {
        kind: 'macvlan',
        ifname: 'mv0' as Ifname,
        mac: parseMac('02:00:00:00:07:01'),
        mtuBytes: 1500,
        up: true,
        mode: 'bridge',
        lower: 'eth0' as Ifname,
      },
    },
    {
      op: 'link.move',
      netns: FIRST,
      ifname: 'mv0' as Ifname,
      toNetns: SECOND,
    },
  ]);
  const { [FIRST]: _gone, ...netns } = host.netns;
  const without = withoutMentions({ netns });
  expect(JSON.stringify(without)).not.toContain(FIRST);
  expect(without.netns[SECOND]?.links['mv0']).toMatchObject({ kind: 'macvlan', lower: null });
  expect(withoutMentions(host)).toEqual(host);
  expect(findingsOf(without)).toEqual([]);
});

it('lets a dummy be down, and two ways into one network be side by side', () => {
  const uplink = getNetns(podHost(), HOST_NETNS).links['uplink'];
  if (uplink?.kind !== 'device') throw new Error('there is no uplink');
  const device = (ifname: string, deviceKind: string, up: boolean, mac: string): Link => ({
    ...uplink,
    ifname: ifname as Ifname,
    deviceKind,
    up,
    mac: parseMac(mac),
    addresses: [],
  });
  const [dummy, wlan] = [
    device('kube-ipvs0', 'dummy', false, '02:00:00:00:07:02'),
    device('wlan0', '', true, '02:00:00:00:07:03'),
  ];
  const host = [dummy, wlan].reduce((at, link) => withLink(at, HOST_NETNS, link), podHost());
  expect(
    findingsOf(
      afterOps(host, [
        ...addressOps(HOST_NETNS, 'kube-ipvs0', '10.96.0.1/32'),
        ...addressOps(HOST_NETNS, 'wlan0', '192.168.1.11/24'),
      ]),
    ),
  ).toEqual([]);
});

it('names both pods where one has the address of the other', () => {
  const host = afterOps(podHost(), addressOps(POD1, 'eth0', '10.7.0.2/24'));
  expect(findingsOf(host)).toMatchObject([
    { netns: POD1, object: 'address 10.7.0.2/24 of link eth0', severity: 'error' },
  ]);
});
