import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Backend, NetnsScope } from '../../backends/backend.ts';
import { echo } from '../../backends/linux/echo.ts';
import { Kernel } from '../../backends/linux/kernel.ts';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { lockFile } from '../../backends/linux/lock.ts';
import { isNetns, sameNetns } from '../../backends/linux/netns.ts';
import { encodeBatch } from '../../backends/linux/nftables-batch.ts';
import { decodeGeneration, encodeGenerationGet } from '../../backends/linux/nftables-message.ts';
import { isFault } from '../../backends/linux/socket.ts';
import { makeAddress } from '../../model/address.ts';
import type { Fault } from '../../model/errno.ts';
import type { Netns } from '../../model/host.ts';
import { type Ifname, parseIfname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import { type NftCommand, formatCommand, formatElement, formatRule } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { type Route, makeRoute } from '../../model/route.ts';
import {
  BATCH,
  BRIDGE_RULES,
  NAT_RULES,
  PORT_RULES,
  RULES,
  TABLE,
} from '../backends/netlink/messages.ts';
import { requirement } from '../requirements.ts';

const skip = requirement('root', 'iproute2', 'nftables');

const HOST = `cube-test-${process.pid}-h`;
const POD = `cube-test-${process.pid}-p`;

const BRIDGE = parseIfname('br0');
const VETH = parseIfname('veth0');
const ETH0 = parseIfname('eth0');
const LO = parseIfname('lo');
const MAC = {
  bridge: parseMac('02:00:00:00:00:01'),
  veth: parseMac('02:00:00:00:00:02'),
  eth0: parseMac('02:00:00:00:00:03'),
};

let backend: Backend;

function run(...command: string[]): string {
  const { stdout, stderr, exitCode } = Bun.spawnSync(command);
  if (exitCode !== 0) throw new Error(`${command.join(' ')}: ${stderr.toString()}`);
  return stdout.toString();
}

/** What iproute2 says, as JSON. */
function ip<T>(netns: string, ...args: string[]): T[] {
  return JSON.parse(run('ip', '-n', netns, '-j', '-d', '-N', ...args) || '[]');
}

const inNetns = (netns: string, ...command: string[]): string =>
  run('ip', 'netns', 'exec', netns, ...command);

function must(...ops: readonly Op[]): void {
  for (const op of ops)
    expect({ op: op.op, fault: backend.execute(op) }).toEqual({ op: op.op, fault: undefined });
}

const refused = (op: Op): Fault | undefined => backend.execute(op);

const SEE_ALL: NetnsScope = { links: 'all', routes: 'all', sysctls: [], nftables: 'all' };

function see(netns: string, scope: Partial<NetnsScope> = {}): Netns {
  const seen = backend.observe({ [netns]: { ...SEE_ALL, ...scope } }).netns[netns];
  if (!seen) throw new Error(`no netns ${netns}`);
  return seen;
}

const addBridge = (mtuBytes = 1450): Op => ({
  op: 'link.add',
  netns: HOST,
  link: { kind: 'bridge', ifname: BRIDGE, mac: MAC.bridge, mtuBytes, up: true },
});
const addVeth = (mtuBytes = 1400, master: Ifname | null = BRIDGE): Op => ({
  op: 'link.add',
  netns: HOST,
  link: {
    kind: 'veth',
    ifname: VETH,
    mac: MAC.veth,
    mtuBytes,
    up: true,
    master,
    peer: { ifname: ETH0, netns: POD, mac: MAC.eth0, mtuBytes, up: true },
  },
});
const address = (text: string, prefixLength: number) =>
  makeAddress({ ip: parseIp(text), prefixLength });
const addAddress = (netns: string, ifname: Ifname, text: string, length: number): Op => ({
  op: 'address.add',
  netns,
  ifname,
  address: address(text, length),
});

const batch = (...commands: readonly NftCommand[]): Op => ({
  op: 'nft.batch',
  netns: POD,
  commands,
});
const jump = (from: string, to: string): NftCommand => ({
  ...TABLE,
  do: 'add rule',
  chain: from,
  rule: { statements: [{ kind: 'verdict', verdict: 'jump', chain: to }], comment: '' },
});

interface IpLink {
  readonly ifname: string;
  readonly flags: string[];
  readonly mtu: number;
  readonly address: string;
  readonly master?: string;
  readonly ifalias?: string;
  readonly promiscuity: number;
  readonly linkinfo?: { info_kind?: string; info_slave_data?: Record<string, unknown> };
}

const ipLink = (netns: string, ifname: string): IpLink =>
  ip<IpLink>(netns, 'link', 'show', ifname)[0] as IpLink;
const hasLink = (netns: string, ifname: string): boolean =>
  ip<IpLink>(netns, 'link').some((l) => l.ifname === ifname);

describe.skipIf(skip)('linux backend', () => {
  beforeEach(() => {
    backend = makeLinuxBackend();
    must({ op: 'netns.add', netns: HOST }, { op: 'netns.add', netns: POD });
  });
  afterEach(() => {
    for (const netns of [POD, HOST]) backend.execute({ op: 'netns.del', netns });
    backend.close();
  });

  describe('netns', () => {
    test('add makes what ip knows, a second one is refused', () => {
      expect(run('ip', 'netns', 'list')).toContain(POD);
      expect(ip<IpLink>(POD, 'link').map((l) => l.ifname)).toEqual(['lo']);
      expect(refused({ op: 'netns.add', netns: POD })?.errno).toBe('EEXIST');
    });

    test('del takes it away, a second one is refused', () => {
      must({ op: 'netns.del', netns: POD });
      expect(run('ip', 'netns', 'list')).not.toContain(POD);
      expect(refused({ op: 'netns.del', netns: POD })?.errno).toBe('ENOENT');
      expect(backend.observe({ [POD]: SEE_ALL })).toEqual({ netns: {} });
    });

    test('a name that came to mean another netns is opened anew', () => {
      must(addBridge());
      expect(see(HOST).links).toHaveProperty(BRIDGE);
      run('ip', 'netns', 'del', HOST);
      run('ip', 'netns', 'add', HOST);
      expect(see(HOST).links).not.toHaveProperty(BRIDGE);
    });

    test('a file that is no netns is told from a missing one', () => {
      const path = `/tmp/${POD}`;
      writeFileSync(path, '');
      expect(isNetns(path)).toBe(false);
      expect(isNetns('/proc/self/ns/mnt')).toBe(false);
      expect(isNetns(`/run/netns/${POD}`)).toBe(true);
      expect(sameNetns(`/run/netns/${POD}`)).toBe(false);
      expect(sameNetns('/proc/self/ns/net')).toBe(true);
      expect(backend.observe({ [path]: SEE_ALL })).toEqual({ netns: {} });
      expect(refused({ op: 'link.set', netns: path, ifname: LO, set: { up: true } })?.errno).toBe(
        'EINVAL',
      );
      rmSync(path);
      expect(backend.observe({ [path]: SEE_ALL })).toEqual({ netns: {} });
      expect(refused({ op: 'link.set', netns: path, ifname: LO, set: { up: true } })?.errno).toBe(
        'ENOENT',
      );
    });

    test('every call ends in the netns that it began in', async () => {
      const before = statSync('/proc/thread-self/ns/net').ino;
      // Threads of the pool exist before the first setns, and new ones may come while another netns is entered.
      await Promise.all(Array.from({ length: 20 }, () => Bun.file('/proc/self/status').text()));
      must(addBridge(), { op: 'sysctl.set', netns: POD, key: 'net/ipv4/ip_forward', value: '1' });
      see(POD, { sysctls: ['net/ipv4/ip_forward'] });
      expect(statSync('/proc/thread-self/ns/net').ino).toBe(before);
      const links = await Promise.all(
        Array.from({ length: 20 }, () => Bun.file('/proc/thread-self/net/dev').text()),
      );
      for (const text of links) expect(text).toBe(links[0]);
      expect(links[0]).not.toContain(BRIDGE);
    });
  });

  describe('link.add', () => {
    test('bridge', () => {
      must(addBridge());
      expect(ipLink(HOST, BRIDGE)).toMatchObject({
        mtu: 1450,
        address: MAC.bridge,
        linkinfo: { info_kind: 'bridge' },
      });
      expect(ipLink(HOST, BRIDGE).flags).toContain('UP');
      expect(refused(addBridge())).toEqual({ errno: 'EEXIST', text: '' });
    });

    test('veth with both ends, its master and its netns', () => {
      must(addBridge(), addVeth());
      expect(ipLink(HOST, VETH)).toMatchObject({ mtu: 1400, address: MAC.veth, master: BRIDGE });
      expect(ipLink(POD, ETH0)).toMatchObject({ mtu: 1400, address: MAC.eth0 });
      expect(ipLink(HOST, VETH).flags).toEqual(expect.arrayContaining(['UP', 'LOWER_UP']));
      expect(ipLink(POD, ETH0).flags).toEqual(expect.arrayContaining(['UP', 'LOWER_UP']));
      const { links } = backend.observe({ [HOST]: SEE_ALL, [POD]: SEE_ALL }).netns[HOST] as Netns;
      expect(links[VETH]).toMatchObject({
        kind: 'veth',
        peer: { netns: POD, ifname: ETH0 },
        port: { master: BRIDGE, hairpin: false },
      });
    });

    test('a taken name of either end leaves nothing', () => {
      must(addVeth(1400, null));
      const other = addVeth(1400, null) as Op & { op: 'link.add' };
      const renamed = { ...other, link: { ...other.link, ifname: parseIfname('veth1') } } as Op;
      expect(refused(renamed)?.errno).toBe('EEXIST');
      expect(hasLink(HOST, 'veth1')).toBe(false);
    });

    test('a master that is no bridge leaves nothing', () => {
      expect(refused(addVeth(1400, LO))?.errno).toBe('EOPNOTSUPP');
      expect(hasLink(HOST, VETH)).toBe(false);
      expect(hasLink(POD, ETH0)).toBe(false);
      expect(refused(addVeth(1400, parseIfname('none')))?.errno).toBe('ENODEV');
    });

    test('limits of MTU and MAC, in the kernel’s words', () => {
      expect(refused(addBridge(67))).toEqual({
        errno: 'EINVAL',
        text: 'mtu less than device minimum',
      });
      expect(refused(addBridge(65536))).toEqual({
        errno: 'EINVAL',
        text: 'mtu greater than device maximum',
      });
      // veth_validate is asked first and gives no text.
      expect(refused(addVeth(65536, null))).toEqual({ errno: 'EINVAL', text: '' });
      const zero: Op = {
        op: 'link.add',
        netns: HOST,
        link: {
          kind: 'bridge',
          ifname: BRIDGE,
          mac: parseMac('01:00:00:00:00:00'),
          mtuBytes: 1500,
          up: false,
        },
      };
      expect(refused(zero)).toMatchObject({ errno: 'EADDRNOTAVAIL' });
    });

    test('a missing netns of the peer is ENOENT', () => {
      must({ op: 'netns.del', netns: POD });
      expect(refused(addVeth(1400, null))).toEqual({ errno: 'ENOENT', text: `no netns "${POD}"` });
    });

    test('the MTU a bridge is made with is not "chosen": it follows its ports', () => {
      must(addBridge(1450), addVeth(1400));
      expect(ipLink(HOST, BRIDGE).mtu).toBe(1400);
      expect(see(HOST).links[BRIDGE]).toMatchObject({
        mtuBytes: 1400,
        mtuChosen: false,
        hadPorts: true,
      });
      must(
        { op: 'link.set', netns: HOST, ifname: BRIDGE, set: { mtuBytes: 1300 } },
        { op: 'link.del', netns: HOST, ifname: VETH },
      );
      expect(ipLink(HOST, BRIDGE).mtu).toBe(1300);
    });
  });

  describe('link.set, port.set and link.del', () => {
    test('each attribute', () => {
      must(addBridge(), addVeth(1400, null));
      const set = (attribute: (Op & { op: 'link.set' })['set']): void =>
        must({ op: 'link.set', netns: HOST, ifname: VETH, set: attribute });
      set({ mtuBytes: 1300 });
      set({ mac: parseMac('02:00:00:00:00:22') });
      set({ alias: 'cube-cni test é' });
      set({ promiscuous: true });
      set({ master: BRIDGE });
      expect(ipLink(HOST, VETH)).toMatchObject({
        mtu: 1300,
        address: '02:00:00:00:00:22',
        ifalias: 'cube-cni test é',
        master: BRIDGE,
      });
      expect(see(HOST).links[VETH]).toMatchObject({
        alias: 'cube-cni test é',
        promiscuous: true,
        mtuBytes: 1300,
      });
      set({ up: false });
      set({ promiscuous: false });
      set({ alias: '' });
      set({ master: null });
      expect(ipLink(HOST, VETH).flags).not.toContain('UP');
      expect(ipLink(HOST, VETH)).not.toHaveProperty('master');
      expect(see(HOST).links[VETH]).toMatchObject({
        alias: '',
        promiscuous: false,
        up: false,
        port: null,
      });
    });

    test('a port’s promiscuity, which the bridge asked for, is not its own', () => {
      must(addBridge(), addVeth());
      expect(ipLink(HOST, VETH).promiscuity).toBe(1);
      expect(see(HOST).links[VETH]).toMatchObject({ promiscuous: false });
    });

    test('faults', () => {
      must(addBridge(), addVeth(1400, null));
      const set = (
        ifname: Ifname,
        attribute: (Op & { op: 'link.set' })['set'],
      ): Fault | undefined => refused({ op: 'link.set', netns: HOST, ifname, set: attribute });
      expect(set(parseIfname('none'), { up: true })?.errno).toBe('ENODEV');
      expect(set(VETH, { mtuBytes: 67 })).toEqual({
        errno: 'EINVAL',
        text: 'mtu less than device minimum',
      });
      expect(set(VETH, { mac: parseMac('01:00:00:00:00:00') })?.errno).toBe('EADDRNOTAVAIL');
      expect(set(VETH, { alias: 'x'.repeat(256) })?.errno).toBe('ERANGE');
      expect(set(BRIDGE, { master: BRIDGE })).toEqual({
        errno: 'ELOOP',
        text: 'Can not enslave a bridge to a bridge',
      });
      expect(set(VETH, { master: LO })?.errno).toBe('EOPNOTSUPP');
      expect(
        refused({ op: 'port.set', netns: HOST, ifname: VETH, flag: 'hairpin', on: true })?.errno,
      ).toBe('EOPNOTSUPP');
      expect(refused({ op: 'link.del', netns: HOST, ifname: parseIfname('none') })?.errno).toBe(
        'ENODEV',
      );
      expect(refused({ op: 'link.del', netns: HOST, ifname: LO })?.errno).toBe('EOPNOTSUPP');
    });

    test('port flags', () => {
      must(addBridge(), addVeth());
      const names = {
        hairpin: 'hairpin',
        isolated: 'isolated',
        learning: 'learning',
        flood: 'flood',
      } as const;
      for (const flag of Object.values(names)) {
        for (const on of [true, false]) {
          must({ op: 'port.set', netns: HOST, ifname: VETH, flag, on });
          expect(ipLink(HOST, VETH).linkinfo?.info_slave_data).toMatchObject({ [flag]: on });
          expect(see(HOST).links[VETH]?.port).toMatchObject({ [flag]: on });
        }
      }
    });

    test('del takes both ends', () => {
      must(addBridge(), addVeth(), { op: 'link.del', netns: HOST, ifname: VETH });
      expect(hasLink(HOST, VETH)).toBe(false);
      expect(hasLink(POD, ETH0)).toBe(false);
    });
  });

  describe('addresses, routes, neighbours', () => {
    beforeEach(() => must(addBridge(), addVeth(), addAddress(HOST, BRIDGE, '10.1.0.1', 24)));

    test('addresses', () => {
      must(
        addAddress(POD, ETH0, '10.1.0.5', 24),
        addAddress(POD, ETH0, '10.1.0.6', 24),
        addAddress(POD, ETH0, 'fd00::5', 64),
        {
          op: 'address.add',
          netns: POD,
          ifname: ETH0,
          address: makeAddress({
            ip: parseIp('10.3.0.1'),
            prefixLength: 32,
            peer: parseIp('10.3.0.2'),
          }),
        },
        {
          op: 'address.add',
          netns: POD,
          ifname: ETH0,
          address: makeAddress({ ip: parseIp('10.4.0.1'), prefixLength: 24, noPrefixRoute: true }),
        },
      );
      const told =
        ip<{
          addr_info: {
            local: string;
            prefixlen: number;
            broadcast?: string;
            secondary?: boolean;
            address?: string;
            noprefixroute?: boolean;
            nodad?: boolean;
            tentative?: boolean;
          }[];
        }>(POD, 'address', 'show', ETH0)[0]?.addr_info ?? [];
      const seen = see(POD).links[ETH0]?.addresses ?? [];
      expect(
        seen.map((a) => ({
          ip: a.ip,
          length: a.prefixLength,
          broadcast: a.broadcast,
          secondary: a.secondary,
          peer: a.peer,
          noPrefixRoute: a.noPrefixRoute,
          noDad: a.noDad,
        })),
      ).toEqual(
        told.map((a) => ({
          ip: a.local,
          length: a.prefixlen,
          broadcast: a.broadcast ?? null,
          secondary: a.secondary ?? false,
          peer: a.address ?? null,
          noPrefixRoute: a.noprefixroute ?? false,
          noDad: a.nodad ?? false,
        })),
      );
      expect(seen.map((a) => a.ip)).toEqual(
        expect.arrayContaining(['10.1.0.5', '10.1.0.6', '10.3.0.1', '10.4.0.1', 'fd00::5']),
      );
      must({ op: 'address.del', netns: POD, ifname: ETH0, address: address('10.1.0.5', 24) });
      expect(see(POD).links[ETH0]?.addresses.some((a) => a.ip === '10.1.0.5')).toBe(false);
    });

    test('address faults', () => {
      must(addAddress(POD, ETH0, '10.1.0.5', 24), addAddress(POD, ETH0, 'fd00::5', 64));
      expect(refused(addAddress(POD, ETH0, '10.1.0.5', 24))).toEqual({
        errno: 'EEXIST',
        text: 'ipv4: Address already assigned',
      });
      expect(refused(addAddress(POD, ETH0, 'fd00::5', 96))).toEqual({
        errno: 'EEXIST',
        text: 'ipv6: address already assigned',
      });
      expect(refused(addAddress(POD, ETH0, 'ff02::5', 64))?.errno).toBe('EADDRNOTAVAIL');
      expect(refused(addAddress(POD, VETH, '10.1.0.7', 24))?.errno).toBe('ENODEV');
      const gone = {
        op: 'address.del',
        netns: POD,
        ifname: ETH0,
        address: address('10.1.0.9', 24),
      } as const;
      expect(refused(gone)).toEqual({ errno: 'EADDRNOTAVAIL', text: 'ipv4: Address not found' });
      must({ op: 'sysctl.set', netns: POD, key: 'net/ipv6/conf/eth0/disable_ipv6', value: '1' });
      expect(refused(addAddress(POD, ETH0, 'fd00::6', 64))).toEqual({
        errno: 'EACCES',
        text: 'ipv6: IPv6 is disabled on this device',
      });
    });

    test('routes', () => {
      must(addAddress(POD, ETH0, '10.1.0.5', 24), addAddress(POD, ETH0, 'fd00::5', 64));
      const routes = [
        makeRoute({ destination: parsePrefix('169.254.1.1/32'), device: ETH0 }),
        makeRoute({
          destination: parsePrefix('0.0.0.0/0'),
          device: ETH0,
          gateway: parseIp('10.1.0.1'),
        }),
        makeRoute({
          destination: parsePrefix('0.0.0.0/0'),
          device: ETH0,
          gateway: parseIp('169.254.1.1'),
          metric: 9,
          source: parseIp('10.1.0.5'),
          protocol: 201,
        }),
        makeRoute({
          destination: parsePrefix('10.9.0.0/16'),
          device: ETH0,
          gateway: parseIp('10.77.0.1'),
          onlink: true,
        }),
        makeRoute({ destination: parsePrefix('::/0'), device: ETH0, gateway: parseIp('fd00::1') }),
        makeRoute({ destination: parsePrefix('fd09::/64'), device: ETH0, metric: 7 }),
      ];
      for (const route of routes) must({ op: 'route.add', netns: POD, route });
      for (const route of routes) expect(see(POD).routes).toContainEqual(route);
      expect(inNetns(POD, 'ip', 'route')).toContain(
        'default via 169.254.1.1 dev eth0 proto 201 src 10.1.0.5 metric 9',
      );
      expect(
        refused({ op: 'route.add', netns: POD, route: routes[1] as (typeof routes)[0] })?.errno,
      ).toBe('EEXIST');
      for (const route of routes.toReversed()) must({ op: 'route.del', netns: POD, route });
      for (const route of routes) expect(see(POD).routes).not.toContainEqual(route);
      for (const route of routes)
        expect(refused({ op: 'route.del', netns: POD, route })?.errno).toBe('ESRCH');
    });

    test('routes of other tables, with an MTU and an MSS of their own', () => {
      must(addAddress(POD, ETH0, '10.1.0.5', 24), addAddress(POD, ETH0, 'fd00::5', 64));
      const choice = { device: ETH0, mtuBytes: 1400, advmssBytes: 1360 };
      const to4 = {
        ...choice,
        destination: parsePrefix('0.0.0.0/0'),
        gateway: parseIp('10.1.0.1'),
      };
      const to6 = { ...choice, destination: parsePrefix('::/0'), gateway: parseIp('fd00::1') };
      const near = { device: ETH0, destination: parsePrefix('10.9.0.0/16'), table: 100 };
      const routes = [
        makeRoute({ ...to4, table: 100 }),
        makeRoute({ ...to4, table: 1000 }),
        makeRoute({ ...to6, table: 100 }),
        makeRoute({ ...near, scope: 'site' }),
      ];
      const add = (route: Route): Op => ({ op: 'route.add', netns: POD, route });
      for (const route of routes) must(add(route));
      const { routes: seen } = see(POD, { links: [ETH0] });
      for (const route of routes) expect(seen).toContainEqual(route);
      const shown = (...args: string[]): string =>
        inNetns(POD, 'ip', ...args).replaceAll(/ +\n/g, '\n');
      expect(shown('route', 'show', 'table', '100')).toBe(
        'default via 10.1.0.1 dev eth0 mtu 1400 advmss 1360\n10.9.0.0/16 dev eth0 scope site\n',
      );
      expect(shown('-6', 'route', 'show', 'table', '100')).toBe(
        'default via fd00::1 dev eth0 metric 1024 mtu 1400 advmss 1360 pref medium\n',
      );
      // Each table has its own keys, and a route with another MTU has the same key.
      for (const route of routes) {
        expect(refused(add({ ...route, mtuBytes: 1300 }))?.errno).toBe('EEXIST');
      }
      must({ op: 'route.del', netns: POD, route: routes[1] as Route });
      expect(see(POD).routes).toContainEqual(routes[0]);
      must({ op: 'link.set', netns: POD, ifname: ETH0, set: { up: false } });
      expect(see(POD).routes.filter((r) => r.table === 100)).toEqual([]);
    });

    test('route faults, in the kernel’s words', () => {
      must(addAddress(POD, ETH0, '10.1.0.5', 24), addAddress(POD, ETH0, 'fd00::5', 64));
      const add = (
        destination: string,
        gateway: string | null,
        source: string | null = null,
      ): Fault | undefined =>
        refused({
          op: 'route.add',
          netns: POD,
          route: makeRoute({
            destination: parsePrefix(destination),
            device: ETH0,
            gateway: gateway === null ? null : parseIp(gateway),
            source: source === null ? null : parseIp(source),
          }),
        });
      expect(add('10.9.0.0/16', '10.8.0.1')).toEqual({
        errno: 'ENETUNREACH',
        text: 'Nexthop has invalid gateway',
      });
      expect(add('fd09::/64', 'fd08::1')?.errno).toBe('EHOSTUNREACH');
      expect(add('fd09::/64', 'fd00::5')).toEqual({
        errno: 'EINVAL',
        text: 'Gateway can not be a local address',
      });
      expect(add('10.9.0.0/16', null, '10.8.0.1')).toEqual({
        errno: 'EINVAL',
        text: 'Invalid prefsrc address',
      });
      must({ op: 'link.set', netns: POD, ifname: ETH0, set: { up: false } });
      expect(add('10.9.0.0/16', null)).toEqual({
        errno: 'ENETDOWN',
        text: 'Device for nexthop is not up',
      });
    });

    test('neighbours: the permanent ones', () => {
      const neighbour = { ip: parseIp('10.1.0.1'), mac: MAC.bridge };
      const neighbour6 = { ip: parseIp('fd00::1'), mac: MAC.bridge };
      must(
        { op: 'neighbour.add', netns: POD, ifname: ETH0, neighbour },
        { op: 'neighbour.add', netns: POD, ifname: ETH0, neighbour: neighbour6 },
      );
      run(
        'ip',
        '-n',
        POD,
        'neigh',
        'add',
        '10.1.0.9',
        'lladdr',
        '02:00:00:00:00:99',
        'dev',
        ETH0,
        'nud',
        'stale',
      );
      expect(see(POD).links[ETH0]?.neighbours).toEqual([neighbour, neighbour6]);
      expect(run('ip', '-n', POD, 'neigh', 'show', 'nud', 'permanent')).toContain(
        '10.1.0.1 dev eth0 lladdr 02:00:00:00:00:01',
      );
      expect(refused({ op: 'neighbour.add', netns: POD, ifname: ETH0, neighbour })?.errno).toBe(
        'EEXIST',
      );
      must({ op: 'neighbour.del', netns: POD, ifname: ETH0, ip: neighbour.ip });
      expect(see(POD).links[ETH0]?.neighbours).toEqual([neighbour6]);
      expect(
        refused({ op: 'neighbour.del', netns: POD, ifname: ETH0, ip: neighbour.ip })?.errno,
      ).toBe('ENOENT');
    });

    test('only what is asked for is read', () => {
      must({ op: 'link.set', netns: POD, ifname: LO, set: { up: true } });
      const seen = see(POD, { links: [LO, parseIfname('none')] });
      expect(Object.keys(seen.links)).toEqual(['lo']);
      expect(new Set(seen.routes.map((r) => r.device))).toEqual(new Set(['lo']));
      expect(see(POD, { links: [ETH0], routes: 'none' }).routes).toEqual([]);
      // The peer is in a netns that is not looked at.
      expect(see(POD, { links: [ETH0] }).links[ETH0]).toMatchObject({ kind: 'veth', peer: null });
    });
  });

  describe('sysctl.set', () => {
    test('writes in the netns and nowhere else', () => {
      const key = 'net/ipv4/conf/lo/arp_notify';
      const before = readFileSync(`/proc/sys/${key}`, 'utf8');
      must({ op: 'sysctl.set', netns: POD, key, value: '1' });
      expect(inNetns(POD, 'cat', `/proc/sys/${key}`)).toBe('1\n');
      expect(readFileSync(`/proc/sys/${key}`, 'utf8')).toBe(before);
      expect(see(POD, { sysctls: [key, 'net/ipv4/conf/none/arp_notify'] }).sysctls).toEqual({
        [key]: '1',
      });
      expect(see(HOST, { sysctls: [key] }).sysctls).toEqual({ [key]: '0' });
    });

    test('faults', () => {
      expect(
        refused({ op: 'sysctl.set', netns: POD, key: 'net/ipv4/conf/none/arp_notify', value: '1' })
          ?.errno,
      ).toBe('ENOENT');
      expect(
        refused({ op: 'sysctl.set', netns: POD, key: 'net/ipv4/ip_forward', value: 'x' })?.errno,
      ).toBe('EINVAL');
    });
  });

  describe('nft.batch', () => {
    test('nft prints what the model prints', () => {
      must(batch(...BATCH));
      const lines = inNetns(POD, 'nft', 'list', 'ruleset')
        .split('\n')
        .map((line) => line.trim());
      for (const rule of [...RULES, ...NAT_RULES, ...PORT_RULES, ...BRIDGE_RULES])
        expect(lines).toContain(formatRule(rule));
      const text = lines.join(' ');
      const elements = BATCH.flatMap((c) => (c.do === 'add element' ? [c.element] : []));
      for (const element of elements) expect(text).toContain(formatElement(element));
      expect(lines).toContain('type nat hook postrouting priority srcnat; policy accept;');
      expect(lines).toContain('type filter hook forward priority filter - 10; policy drop;');
    });

    test('it reads what nft wrote', () => {
      must(batch(...BATCH));
      const ours = see(POD).nftables;
      inNetns(POD, 'nft', 'flush', 'ruleset');
      const script = `/tmp/${POD}.nft`;
      writeFileSync(script, BATCH.map(formatCommand).join('\n'));
      inNetns(POD, 'nft', '-f', script);
      rmSync(script);
      expect(see(POD).nftables).toEqual(ours);
      expect(Object.values(ours['inet cube']?.chains ?? {}).flatMap((c) => c.rules)).toEqual([
        ...RULES,
        ...NAT_RULES,
        ...PORT_RULES,
      ]);
      expect(ours['bridge cube']?.chains['frames']?.rules).toEqual(BRIDGE_RULES);
    });

    test('elements by their keys, tables by their names', () => {
      must(batch(...BATCH));
      const key = parseIp('10.0.0.1');
      const scope = {
        nftables: [
          { ...TABLE, elements: { s4: [key, parseIp('10.0.0.77')] } },
          { ...TABLE, table: 'none', elements: 'all' },
        ],
      } as const;
      const { nftables } = see(POD, scope);
      expect(Object.keys(nftables)).toEqual(['inet cube']);
      expect(nftables['inet cube']?.sets['s4']?.elements).toEqual({
        [key]: { key, verdict: null, comment: 'hi' },
      });
      expect(nftables['inet cube']?.sets['m4']?.elements).toEqual({});
      expect(see(POD, { nftables: [] }).nftables).toEqual({});
    });

    test('one refused command leaves all undone, and is named', () => {
      must(batch(...BATCH));
      const before = see(POD).nftables;
      const bad: NftCommand = {
        ...TABLE,
        do: 'delete element',
        set: 's4',
        key: parseIp('10.9.9.9'),
      };
      const good: NftCommand = { ...TABLE, do: 'flush chain', chain: 'rules' };
      expect(refused(batch(good, bad, good))).toEqual({
        errno: 'ENOENT',
        text: 'delete element inet cube s4 { 10.9.9.9 }',
      });
      expect(see(POD).nftables).toEqual(before);
      expect(refused(batch({ ...TABLE, do: 'delete chain', chain: 'target' }))?.errno).toBe(
        'EBUSY',
      );
      expect(
        refused(
          batch({
            ...TABLE,
            do: 'add rule',
            chain: 'rules',
            rule: {
              statements: [{ kind: 'verdict', verdict: 'jump', chain: 'filter' }],
              comment: '',
            },
          }),
        )?.errno,
      ).toBe('EOPNOTSUPP');
      expect(
        refused(
          batch({ ...TABLE, do: 'add set', set: 's4', keyType: 'ipv6_addr', holds: 'nothing' }),
        )?.errno,
      ).toBe('EEXIST');
    });

    test('a loop of jumps is refused once packets could come into it', () => {
      must(batch(...BATCH), batch(jump('target', 'rules')));
      expect(refused(batch(jump('filter', 'target')))?.errno).toBe('EMLINK');
    });

    test('a batch of many elements', () => {
      const elements = Array.from({ length: 5000 }, (_, i): NftCommand => ({
        ...TABLE,
        do: 'add element',
        set: 's4',
        element: { key: parseIp(`10.5.${i >> 8}.${i & 255}`), verdict: null, comment: `pod ${i}` },
      }));
      must(
        batch(
          { ...TABLE, do: 'add table' },
          { ...TABLE, do: 'add set', set: 's4', keyType: 'ipv4_addr', holds: 'nothing' },
          ...elements,
        ),
      );
      const seen = see(POD).nftables['inet cube']?.sets['s4']?.elements ?? {};
      expect(Object.keys(seen)).toHaveLength(5000);
      expect(seen['10.5.19.135']?.comment).toBe('pod 4999');
    });

    test('rules and sets of others are read without being understood', () => {
      const script = `/tmp/${POD}.nft`;
      writeFileSync(
        script,
        `
        table inet other {
          set ports { type inet_service; elements = { 80 } }
          set ranges { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }
          chain in {
            type filter hook input priority 0
            ct state established,related accept
            meta nfproto ipv4 accept
            tcp dport @ports counter drop
            ip saddr 10.0.0.0/8 ip protocol tcp log prefix "x" accept
          }
        }
        table bridge other {
          set links { type ifname; elements = { "eth0" } }
          set ports { type ifname . inet_service; elements = { "eth0" . 80 } }
          chain c {
            type filter hook input priority 0
            ether type arp accept
            arp saddr ip 10.0.0.1 drop
            iifname "eth*" accept
            ether type ip ip saddr 10.0.0.1 drop
            iifname . tcp dport @ports drop
            meta protocol ip iifname @links accept
          }
        }
        table ip plain {
          chain c { ip saddr 10.0.0.0/8 drop; }
        }
      `,
      );
      inNetns(POD, 'nft', '-f', script);
      rmSync(script);
      const { nftables } = see(POD);
      expect(Object.keys(nftables)).toEqual(['inet other', 'bridge other', 'ip plain']);
      expect(nftables['inet other']?.sets).toEqual({});
      expect(nftables['bridge other']?.chains['c']?.rules.map(formatRule)).toEqual([
        '(payload) (cmp) accept',
        '(payload) (cmp) (payload) (cmp) drop',
        '(meta) (cmp) accept',
        '(payload) (cmp) (payload) (cmp) drop',
        '(meta) (cmp) (meta) (payload) (lookup) drop',
        '(meta) (cmp) iifname @links accept',
      ]);
      expect(nftables['bridge other']?.sets).toMatchObject({ links: { keyType: 'ifname' } });
      const texts = nftables['inet other']?.chains['in']?.rules.map((rule) => formatRule(rule));
      expect(texts).toEqual([
        '(ct) (bitwise) (cmp) accept',
        '(meta) (cmp) accept',
        '(meta) (cmp) (payload) (lookup) counter drop',
        'ip saddr 10.0.0.0/8 (payload) (cmp) (log) accept',
      ]);
      expect(nftables['ip plain']?.chains['c']?.rules.map(formatRule)).toEqual([
        'ip saddr 10.0.0.0/8 drop',
      ]);
    });
  });

  describe('observe', () => {
    test('tells the release of the kernel to who asks for it', () => {
      const asking = makeLinuxBackend({ tellsRelease: true });
      const { kernel } = asking.observe({});
      asking.close();
      expect(kernel).toEqual({ release: run('uname', '-r').trim() });
      expect(backend.observe({})).toEqual({ netns: {} });
    });

    test('kinds and routes that the model lacks do not disturb', () => {
      must(addBridge());
      run('ip', '-n', HOST, 'link', 'add', 'vt0', 'link', BRIDGE, 'type', 'macvtap');
      run('ip', '-n', HOST, 'address', 'add', '10.1.0.1/24', 'dev', BRIDGE);
      run(
        'ip',
        '-n',
        HOST,
        'route',
        'add',
        '10.8.0.0/16',
        'nexthop',
        'via',
        '10.1.0.2',
        'nexthop',
        'via',
        '10.1.0.3',
      );
      run('ip', '-n', HOST, 'route', 'add', 'blackhole', '10.9.0.0/16');
      const { links, routes } = see(HOST);
      expect(links['vt0']).toMatchObject({ kind: 'device', deviceKind: 'macvtap' });
      expect(routes).toContainEqual(
        expect.objectContaining({ destination: '10.8.0.0/16', device: null, gateway: null }),
      );
      expect(routes).toContainEqual(
        expect.objectContaining({ destination: '10.9.0.0/16', type: 'blackhole', device: null }),
      );
    });

    test('the past of a bridge, as far as it shows', () => {
      run('ip', '-n', HOST, 'link', 'add', 'plain', 'up', 'type', 'bridge');
      expect(see(HOST).links['plain']).toMatchObject({
        hadPorts: false,
        macChosen: true,
        mtuChosen: false,
      });
      // A bridge that is made with its MAC has no carrier, as if it had lost its last port.
      must(addBridge(1500));
      expect(ipLink(HOST, BRIDGE).flags).toContain('NO-CARRIER');
      expect(see(HOST).links[BRIDGE]).toMatchObject({
        hadPorts: true,
        macChosen: true,
        mtuChosen: false,
      });
      must(addVeth(1500));
      expect(see(HOST, { links: [BRIDGE] }).links[BRIDGE]).toMatchObject({ macChosen: true });
      expect(see(HOST).links[BRIDGE]).toMatchObject({
        hadPorts: true,
        macChosen: true,
        mtuChosen: false,
      });
    });

    test('a veth within one netns', () => {
      run('ip', '-n', HOST, 'link', 'add', 'a0', 'type', 'veth', 'peer', 'name', 'b0');
      const { links } = see(HOST);
      expect(links['a0']).toMatchObject({ peer: { netns: HOST, ifname: 'b0' } });
      expect(links['b0']).toMatchObject({ peer: { netns: HOST, ifname: 'a0' } });
    });

    test('200 links with an address each', () => {
      const lines = Array.from({ length: 100 }, (_, i) => [
        `link add va${i} type veth peer name vb${i}`,
        `address add 10.${i}.0.1/24 dev va${i}`,
        `address add 10.${i}.1.1/24 dev vb${i}`,
      ]).flat();
      const script = `/tmp/${HOST}.ip`;
      writeFileSync(script, lines.join('\n'));
      run('ip', '-n', HOST, '-batch', script);
      rmSync(script);
      const seen = see(HOST);
      const told = ip<IpLink>(HOST, 'link');
      expect(Object.keys(seen.links)).toEqual(told.map((l) => l.ifname));
      for (let i = 0; i < 100; i += 1) {
        expect(seen.links[`va${i}`]).toMatchObject({
          peer: { netns: HOST, ifname: `vb${i}` },
          addresses: [{ ip: `10.${i}.0.1` }],
        });
      }
      const some = see(HOST, {
        links: Array.from({ length: 20 }, (_, i) => parseIfname(`va${i}`)),
      });
      expect(Object.keys(some.links)).toHaveLength(20);
      expect(some.links['va7']?.addresses).toEqual(seen.links['va7']?.addresses);
    });
  });

  test('a batch for a ruleset that is another by now is refused, and changes nothing', () => {
    const kernel = new Kernel();
    const netns = kernel.netns(HOST);
    const socket = isFault(netns) ? netns : netns.netfilter();
    if (isFault(socket)) throw new Error(socket.errno);
    const generationNow = (): number => {
      const answer = socket.ask(encodeGenerationGet(), decodeGeneration);
      if (isFault(answer)) throw new Error(answer.errno);
      return answer.generation;
    };
    const add = (table: string, generation: number): string | undefined =>
      socket.batch(
        encodeBatch([{ do: 'add table', family: 'ip', table }], { handles: new Map(), generation }),
      )?.fault.errno;
    const generation = generationNow();
    expect(add('first', generation)).toBeUndefined();
    expect(add('second', generation)).toBe('ERESTART');
    expect(generationNow()).toBe(generation + 1);
    expect(run('ip', 'netns', 'exec', HOST, 'nft', 'list', 'tables').trim()).toBe('table ip first');
    kernel.close();
  });

  describe('echo', () => {
    test('answers from a netns, of both families', () => {
      must(
        addBridge(),
        addVeth(),
        addAddress(HOST, BRIDGE, '10.1.0.1', 24),
        addAddress(HOST, BRIDGE, 'fd00::1', 64),
        addAddress(POD, ETH0, '10.1.0.5', 24),
        addAddress(POD, ETH0, 'fd00::5', 64),
      );
      for (const [source, destination] of [
        ['10.1.0.5', '10.1.0.1'],
        ['fd00::5', 'fd00::1'],
      ] as const) {
        const reply = echo({
          netns: POD,
          destination: parseIp(destination),
          source: parseIp(source),
          timeoutMs: 3000,
        });
        expect(reply).toMatchObject({ ok: true, from: destination });
      }
      const large = { netns: POD, destination: parseIp('10.1.0.1'), timeoutMs: 3000 } as const;
      expect(echo({ ...large, payloadBytes: 1372 })).toMatchObject({ ok: true });
      expect(echo({ ...large, payloadBytes: 0 })).toMatchObject({ ok: true });
      expect(echo({ ...large, payloadBytes: 1373 })).toMatchObject({
        ok: false,
        reason: 'EMSGSIZE',
      });
    });

    test('says why there is no answer', () => {
      const ask = { netns: POD, destination: parseIp('10.1.0.1'), timeoutMs: 50 } as const;
      // Without its local table, which the first address makes, a netns takes any source for its own.
      must({ op: 'link.set', netns: POD, ifname: LO, set: { up: true } });
      expect(echo(ask)).toMatchObject({ ok: false, reason: 'ENETUNREACH' });
      expect(echo({ ...ask, source: parseIp('10.1.0.9') })).toMatchObject({
        ok: false,
        reason: 'EADDRNOTAVAIL',
      });
      expect(echo({ ...ask, netns: 'none' })).toMatchObject({ ok: false, reason: 'ENOENT' });
      must(addVeth(1400, null), addAddress(POD, ETH0, '10.1.0.5', 24));
      expect(echo(ask)).toMatchObject({ ok: false, reason: 'timeout' });
    });
  });

  describe('lockFile', () => {
    const path = `/tmp/${HOST}.lock`;
    afterEach(() => rmSync(path, { force: true }));

    test('is held by one at a time', () => {
      const first = lockFile(path, 0);
      expect(first).toBeDefined();
      expect(lockFile(path, 5)).toBeUndefined();
      first?.release();
      const second = lockFile(path, 0);
      expect(second).toBeDefined();
      second?.release();
    });

    test('ends with the process that held it, not with its children', () => {
      const module = new URL('../../backends/linux/lock.ts', import.meta.url).pathname;
      // The child outlives the holder, which is killed while it has the lock.
      const program = `
        import { lockFile } from '${module}';
        lockFile('${path}', 0);
        Bun.spawn(['sleep', '3']).unref();
        process.kill(process.pid, 'SIGKILL');`;
      Bun.spawnSync([process.execPath, '-e', program]);
      const lock = lockFile(path, 100);
      expect(lock).toBeDefined();
      lock?.release();
    });

    test('throws where there can be no lock', () => {
      expect(() => lockFile('/proc/none/lock', 0)).toThrow('ENOENT');
    });
  });
});
