import { rmSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Backend } from '../../backends/backend.ts';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { makeAddress } from '../../model/address.ts';
import { parseIfname } from '../../model/ifname.ts';
import { familyOf, parseIp } from '../../model/ip.ts';
import { type Mac, parseMac } from '../../model/mac.ts';
import type { Op, OpOf } from '../../model/op.ts';
import { formatScript } from '../../model/plan-script.ts';
import { requirement } from '../requirements.ts';

const HOST = `cube-effects-${process.pid}-h`;
const POD = `cube-effects-${process.pid}-p`;
const OTHER = `cube-effects-${process.pid}-o`;

const BRIDGE = parseIfname('br0');
const ETH0 = parseIfname('eth0');
const POD_MAC = parseMac('02:00:00:00:00:0a');
const OLD_MAC = parseMac('02:00:00:00:00:99');

let backend: Backend;

function run(...command: string[]): string {
  const { stdout, stderr, exitCode } = Bun.spawnSync(command);
  if (exitCode !== 0) throw new Error(`${command.join(' ')}: ${stderr.toString()}`);
  return stdout.toString();
}

const inNetns = (netns: string, ...command: string[]): string =>
  run('ip', 'netns', 'exec', netns, ...command);

function must(...ops: readonly Op[]): void {
  for (const op of ops)
    expect({ op: op.op, fault: backend.execute(op) }).toEqual({ op: op.op, fault: undefined });
}

/** Asks until it is so, up to a second; then what it is. */
function eventually(read: () => string, wanted: string): string {
  const deadline = performance.now() + 1000;
  while (read() !== wanted && performance.now() < deadline) Bun.sleepSync(5);
  return read();
}

const address = (netns: string, ip: string): Op => ({
  op: 'address.add',
  netns,
  ifname: ETH0,
  address: {
    ...makeAddress({ ip: parseIp(ip), prefixLength: familyOf(ip) === 4 ? 24 : 64 }),
    noDad: true,
  },
});

const port = (name: string, mac: string, netns: string, peerMac: Mac): Op => ({
  op: 'link.add',
  netns: HOST,
  link: {
    kind: 'veth',
    ifname: parseIfname(name),
    mac: parseMac(mac),
    mtuBytes: 1500,
    up: true,
    master: BRIDGE,
    peer: { ifname: ETH0, netns, mac: peerMac, mtuBytes: 1500, up: true },
  },
});
const announce = (ip: string): Op => ({
  op: 'address.announce',
  netns: POD,
  ifname: ETH0,
  ip: parseIp(ip),
  mac: POD_MAC,
});
/** What the neighbour in `OTHER` takes for the MAC of an address; '' for none. */
const knownMac = (ip: string): string =>
  (
    JSON.parse(run('ip', '-n', OTHER, '-j', 'neigh', 'show', ip, 'dev', ETH0) || '[]') as {
      lladdr?: string;
    }[]
  )[0]?.lladdr ?? '';
const remember = (ip: string): string =>
  run('ip', '-n', OTHER, ...`neigh replace ${ip} lladdr ${OLD_MAC} dev eth0 nud stale`.split(' '));

const flush = (ip: string): OpOf<'conntrack.flush'> => ({
  op: 'conntrack.flush',
  netns: HOST,
  ip: parseIp(ip),
});
const track = (...flows: readonly string[]): void => {
  const file = `/tmp/${HOST}.flows`;
  writeFileSync(file, flows.map((flow) => `-I -p udp -t 600 ${flow}\n`).join(''));
  inNetns(HOST, 'conntrack', '-R', file);
  rmSync(file);
};
/** The original source ports of what is tracked: each flow here has its own. */
const tracked = (): number[] =>
  [4, 6]
    .flatMap((family) =>
      inNetns(HOST, 'conntrack', '-L', '-f', `ipv${family}`)
        .split('\n')
        .flatMap((line) => /^udp.*? sport=(\d+)/.exec(line)?.[1] ?? []),
    )
    .map(Number)
    .toSorted((a, b) => a - b);

const OF_THE_POD = [
  '-s 10.1.0.5 -d 10.1.0.9 --sport 1 --dport 53',
  '-s 10.1.0.9 -d 10.1.0.5 --sport 2 --dport 53',
  '-s 10.1.0.8 -d 10.96.0.1 --sport 3 --dport 53 --dst-nat 10.1.0.5',
  '-s 10.1.0.8 -d 10.1.0.9 --sport 4 --dport 53 --src-nat 10.1.0.5',
  '-s 10.1.0.5 -d 10.1.0.9 --sport 5 --dport 53 -w 7',
];
const OF_OTHERS = [
  '-s 10.1.0.8 -d 10.1.0.9 --sport 11 --dport 53',
  '-s 10.1.0.50 -d 10.1.0.51 --sport 12 --dport 53',
  '-s fd00::8 -d fd00::9 --sport 13 --dport 53',
];
const OF_THE_POD6 = [
  '-s fd00::5 -d fd00::9 --sport 21 --dport 53',
  '-s fd00::9 -d fd00::5 --sport 22 --dport 53',
  '-s fd00::8 -d fd00::a --sport 23 --dport 53 --dst-nat fd00::5',
];

/** What the bridge does with the port of `OTHER`. */
const portState = (): string =>
  /state (\w+) priority/.exec(run('ip', '-n', HOST, '-d', 'link', 'show', 'other'))?.[1] ?? '';

describe.skipIf(requirement('root', 'iproute2'))('address.announce', () => {
  beforeEach(() => {
    backend = makeLinuxBackend();
    for (const netns of [HOST, POD, OTHER]) must({ op: 'netns.add', netns });
    must(
      {
        op: 'link.add',
        netns: HOST,
        link: {
          kind: 'bridge',
          ifname: BRIDGE,
          mac: parseMac('02:00:00:00:00:01'),
          mtuBytes: 1500,
          up: true,
        },
      },
      port('other', '02:00:00:00:00:02', OTHER, parseMac('02:00:00:00:00:0b')),
      address(OTHER, '10.1.0.6'),
      address(OTHER, 'fd00::6'),
    );
    eventually(portState, 'forwarding');
  });
  afterEach(() => {
    for (const netns of [POD, OTHER, HOST]) backend.execute({ op: 'netns.del', netns });
    backend.close();
  });

  test.each(['10.1.0.5', 'fd00::5'])('a neighbour forgets where %s was', (ip) => {
    must(port('pod', '02:00:00:00:00:03', POD, POD_MAC), address(POD, ip));
    remember(ip);
    must(announce(ip));
    expect(eventually(() => knownMac(ip), POD_MAC)).toBe(POD_MAC);
  });

  test('a neighbour that knew nothing of the address does not learn it', () => {
    must(port('pod', '02:00:00:00:00:03', POD, POD_MAC), address(POD, '10.1.0.5'));
    must(announce('10.1.0.5'));
    Bun.sleepSync(50);
    expect(knownMac('10.1.0.5')).toBe('');
  });

  test('arrives from every link that was made a moment ago', () => {
    for (let i = 0; i < 20; i += 1) {
      const ip = i % 2 === 0 ? `10.1.0.${20 + i}` : `fd00::${20 + i}`;
      remember(ip);
      must(port('pod', '02:00:00:00:00:03', POD, POD_MAC), address(POD, ip), announce(ip));
      expect(eventually(() => knownMac(ip), POD_MAC)).toBe(POD_MAC);
      must({ op: 'link.del', netns: HOST, ifname: parseIfname('pod') });
    }
  });

  test('does not wait for a carrier that does not come', () => {
    must(port('pod', '02:00:00:00:00:03', POD, POD_MAC), address(POD, '10.1.0.5'), {
      op: 'link.set',
      netns: HOST,
      ifname: parseIfname('pod'),
      set: { up: false },
    });
    const start = performance.now();
    must(announce('10.1.0.5'));
    expect(performance.now() - start).toBeLessThan(90);
  });
});

const to = (family: 4 | 6, protocol: 'tcp' | 'udp', number: number): OpOf<'conntrack.flush'> => ({
  op: 'conntrack.flush',
  netns: HOST,
  family,
  ports: [{ protocol, port: number }],
});

describe.skipIf(requirement('root', 'iproute2', 'nftables', 'conntrack'))('conntrack.flush', () => {
  beforeEach(() => {
    backend = makeLinuxBackend();
    must({ op: 'netns.add', netns: HOST });
  });
  afterEach(() => {
    backend.execute({ op: 'netns.del', netns: HOST });
    backend.close();
  });

  test('where nothing is tracked does nothing', () => {
    expect(backend.execute(flush('10.1.0.5'))).toBeUndefined();
    expect(backend.execute(flush('fd00::5'))).toBeUndefined();
  });

  describe('where connections are tracked', () => {
    beforeEach(() => {
      const rules = 'add table inet t; add chain inet t c { type filter hook input priority 0; }';
      inNetns(HOST, 'nft', `${rules}; add rule inet t c ct state established accept`);
      track(...OF_THE_POD, ...OF_OTHERS, ...OF_THE_POD6);
    });

    test('those of the address go, by either tuple and in any zone, and no others', () => {
      expect(tracked()).toEqual([1, 2, 3, 4, 5, 11, 12, 13, 21, 22, 23]);
      must(flush('10.1.0.5'));
      expect(tracked()).toEqual([11, 12, 13, 21, 22, 23]);
      must(flush('fd00::5'));
      expect(tracked()).toEqual([11, 12, 13]);
      must(flush('10.1.0.5'), flush('fd00::5'), flush('192.0.2.1'));
      expect(tracked()).toEqual([11, 12, 13]);
    });

    test('those to ports go, of one protocol and family, and no others', () => {
      const all = [1, 2, 3, 4, 5, 11, 12, 13, 21, 22, 23];
      must(to(4, 'tcp', 53), to(6, 'udp', 54), to(4, 'udp', 9));
      expect(tracked()).toEqual(all);
      must(to(6, 'udp', 53));
      expect(tracked()).toEqual([1, 2, 3, 4, 5, 11, 12]);
      must(to(4, 'udp', 53));
      expect(tracked()).toEqual([]);
    });

    test('the kernel searches a large table itself, with the same outcome', () => {
      const crowd = Array.from(
        { length: 20_000 },
        (_, i) => `-s 10.2.${i >> 8}.${i & 255} -d 10.200.0.1 --sport 31 --dport 53`,
      );
      track(...crowd);
      must(flush('10.1.0.5'), flush('fd00::5'));
      const left = tracked();
      expect(left.filter((sport) => sport !== 31)).toEqual([11, 12, 13]);
      expect(left).toHaveLength(20_003);
    });

    test('the script does the same, also where nothing matches', () => {
      run('sh', '-c', formatScript([flush('10.1.0.5'), flush('10.1.0.5'), flush('fd00::5')]));
      expect(tracked()).toEqual([11, 12, 13]);
    });
  });
});
