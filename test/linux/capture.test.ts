/** The bytes of the simulator against tcpdump, which reads them, and against the kernel, which sends the same. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { parseIp } from '../../model/ip.ts';
import { WHOLE, observeWhole } from '../../plugin/process/whole-host.ts';
import { frameBytes } from '../../sim/bytes.ts';
import { capture } from '../../sim/capture.ts';
import { formatPacket } from '../../sim/frame.ts';
import { hopsOf, travel } from '../../sim/journey.ts';
import { pcap } from '../../sim/pcap.ts';
import { makeWorld } from '../../sim/world.ts';
import { frames } from '../arbitraries/frame.ts';
import { requirement } from '../requirements.ts';
import { ROUTED } from '../sim/hosts.ts';

const folder = mkdtempSync(join(tmpdir(), 'cube-capture-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** What tcpdump says of a capture, and what it complains of. */
function read(file: Uint8Array, ...options: readonly string[]): string {
  const path = join(folder, 'read.pcapng');
  writeFileSync(path, file);
  const env = { ...process.env, TZ: 'UTC' };
  const ended = spawnSync('tcpdump', ['-nn', ...options, '-r', path], {
    encoding: 'utf8',
    env,
    maxBuffer: 1 << 26,
  });
  expect(ended.status, ended.stderr).toBe(0);
  return ended.stdout;
}

const COMPLAINTS = /\bbad [a-z]|incorrect|wrong|invalid|truncated|\[\||unknown|exceeded/;

describe.skipIf(requirement('tcpdump'))('tcpdump', () => {
  it('finds nothing wrong with frames of every kind', () => {
    const sample = fc.sample(frames(1), { numRuns: 400, seed: 1 });
    const packets = sample.map((frame, microseconds) => ({
      link: 'all',
      bytes: frameBytes(frame),
      microseconds,
    }));
    const text = read(pcap(packets), '-e', '-vv');
    const lines = text.split('\n');
    expect(lines.filter((line) => COMPLAINTS.test(line))).toEqual([]);
    expect(text.match(/^\d\d:\d\d:\d\d\.\d{6} /gm)).toHaveLength(packets.length);
  });

  it.each(['10.244.2.4', 'fd00:2::4'])('reads the fragments of a trace to %s', (to) => {
    const request = {
      netns: 'a',
      destination: parseIp(to),
      payloadBytes: 4000,
      dontFragment: false,
    };
    const { forward, reachable } = travel(makeWorld(ROUTED), request);
    expect(reachable.back).toBe(true);
    const sent = forward.filter(
      ({ netns, stage, data }) =>
        netns === 'a' && stage === 'transmit' && data.kind === 'frame' && data.packet.kind === 'ip',
    );
    const text = read(pcap(capture(sent, 0)), '-v').replaceAll(/\n\s+/g, ' ');
    expect(text.split('\n').filter((line) => COMPLAINTS.test(line))).toEqual([]);
    const isOf4 = to.includes('.');
    // offset 1480, flags [+], proto ICMP (1), length 1500; frag (0x00000001:1448|1448).
    const pattern = isOf4 ? /offset (\d+), flags \[(\+?)/g : /frag \((?:0x[\da-f]+:)?(\d+)\|(\d+)/g;
    const found = [...text.matchAll(pattern)].map(([, offset, rest]) => `${offset} ${rest}`);
    expect(found.filter((each) => !each.startsWith('0 n'))).toEqual(
      isOf4 ? ['0 +', '1480 +', '2960 '] : ['0 1448', '1448 1448', '2896 1112'],
    );
  });

  it.each([
    ['10.244.1.3', undefined],
    ['10.244.2.4', 'tcp'],
    ['10.244.2.4', 'udp'],
    ['fd00:2::4', undefined],
    ['fd00:2::4', 'tcp'],
  ] as const)('reads the addresses of a trace to %s (%s)', (to, protocol) => {
    const request = {
      netns: 'a',
      destination: parseIp(to),
      ...(protocol === undefined ? {} : { to: { protocol, port: 7000 } }),
    };
    const journey = travel(makeWorld(ROUTED), request);
    expect(journey.reachable.back).toBe(true);
    const hops = hopsOf(journey).filter(
      ({ data, stage }) => data.kind === 'frame' && stage === 'transmit',
    );
    const lines = read(pcap(capture(hops, 0)), '-e')
      .trimEnd()
      .split('\n');
    expect(lines).toHaveLength(hops.length);
    for (const [index, { data }] of hops.entries()) {
      const packet = data.kind === 'frame' ? data.packet : data;
      // 10.0.0.1:80, [fd00::1]:80: tcpdump has a point before the port.
      const words = formatPacket(packet).match(/[\da-f]*[.:][\da-f.:]*[\da-f]/g) ?? [];
      const line = lines[index]?.replaceAll(/(\d+\.\d+\.\d+\.\d+|:[\da-f]+)\.(\d+)/g, '$1:$2');
      for (const word of words) expect(line).toContain(word);
    }
  });
});

const DOCS = join(import.meta.dirname, '../../docs/trace.md');
const TRANSCRIPT = /(?<=<!-- capture -->\n\n```\n)[\s\S]*?(?=```)/;

describe.skipIf(requirement('tcpdump'))('docs/trace.md', () => {
  it('shows what tcpdump says of a capture (`UPDATE=1` writes it)', () => {
    const request = { netns: 'a', destination: parseIp('10.244.1.3') };
    const { forward, return: back } = travel(makeWorld(ROUTED), request);
    const commands = [
      '$ cube-cni trace a 10.244.1.3 --pcap trace.pcapng',
      '...',
      '$ tcpdump -nn -t -r trace.pcapng',
    ];
    const lines = `${commands.join('\n')}\n${read(pcap(capture([...forward, ...back], 0)), '-t')}`;
    const text = readFileSync(DOCS, 'utf8');
    expect(text).toMatch(TRANSCRIPT);
    const written = text.replace(TRANSCRIPT, () => lines);
    if (process.env['UPDATE'] === '1') writeFileSync(DOCS, written);
    else expect(written).toBe(text);
  });
});

const END = ['a', 'b'].map((end) => `cube-capture-${process.pid}-${end}`) as [string, string];
const [A, B] = END;

/** Two netns with a veth between them, which say nothing by themselves. */
const SETUP = [
  ...END.map((netns) => `ip netns add ${netns}`),
  `ip -n ${A} link add eth0 address 02:00:00:00:00:0a type veth peer name eth0 netns ${B} address 02:00:00:00:00:0b`,
  ...END.flatMap((netns) => [
    `ip -n ${netns} link set eth0 addrgenmode none`,
    `ip -n ${netns} link set eth0 up`,
  ]),
  ...END.flatMap((netns, index) => [
    `ip -n ${netns} address add 10.9.0.${index + 1}/24 dev eth0`,
    `ip -n ${netns} address add fd09::${index + 1}/64 dev eth0 nodad`,
  ]),
];

/** Has the kernel joined the group of the netns' IPv6 address? It does that later, and hears no question before. */
function hears(netns: string, index: number): boolean {
  const groups = execFileSync('ip', ['-n', netns, 'maddress', 'show', 'dev', 'eth0'], {
    encoding: 'utf8',
  });
  return groups.includes(`ff02::1:ff00:${index + 1}`);
}

/** What the sender of an echo is free to choose, or draws: [from, to) in the frame. */
const FREE = {
  // Identification, DF, header checksum; ICMP checksum, identifier, sequence number and payload.
  4: [
    [18, 22],
    [24, 26],
    [36, 98],
  ],
  // Flow label; the same of ICMPv6.
  6: [
    [15, 18],
    [56, 118],
  ],
} as const;

/** The frame as hex, with what is free in an echo as zeros. Everything of ARP and ND has to be equal. */
function comparable(frame: Uint8Array): string {
  const own = frame.slice();
  const type = (own[12] ?? 0) * 256 + (own[13] ?? 0);
  const isEcho = type === 0x0800 || (type === 0x86dd && (own[54] === 128 || own[54] === 129));
  if (isEcho) for (const [from, to] of FREE[type === 0x0800 ? 4 : 6]) own.fill(0, from, to);
  return Buffer.from(own).toString('hex');
}

/** The frames of a file that tcpdump wrote: classic pcap, little endian. */
function framesOf(file: Buffer): Uint8Array[] {
  const found: Uint8Array[] = [];
  for (let at = 24; at < file.length;) {
    const length = file.readUInt32LE(at + 8);
    found.push(new Uint8Array(file.subarray(at + 16, at + 16 + length)));
    at += 16 + length;
  }
  return found;
}

/** What goes over the link of `A` while it pings: a question about the neighbour, its answer, the echo and its reply. */
async function captureOf(target: string): Promise<Uint8Array[]> {
  const file = join(folder, 'kernel.pcap');
  const words = 'icmp6 and (ip6[40] = 128 or ip6[40] = 129 or ip6[40] = 135 or ip6[40] = 136)';
  const tcpdump = ['tcpdump', '-Z', 'root', '-i', 'eth0', '-c', '4', '-U', '-w', file];
  const filter = `arp or icmp or (${words})`;
  const child = spawn('ip', ['netns', 'exec', A, ...tcpdump, '--immediate-mode', filter]);
  const ended = once(child, 'exit');
  let said = '';
  await new Promise<void>((resolve, reject) => {
    child.stderr.on('data', (data: Buffer) => {
      said += data.toString();
      if (said.includes('listening on')) resolve();
    });
    child.once('exit', () => reject(new Error(said)));
  });
  const family = target.includes(':') ? '-6' : '-4';
  const ping = ['busybox', 'ping', family, '-c', '1', '-W', '5', '-s', '56', target];
  execFileSync('ip', ['netns', 'exec', A, ...ping], { timeout: 10_000 });
  const timer = setTimeout(() => child.kill(), 5000);
  await ended;
  clearTimeout(timer);
  return framesOf(readFileSync(file));
}

describe.skipIf(requirement('root', 'iproute2', 'busybox', 'tcpdump'))('the kernel', () => {
  afterAll(() => {
    for (const netns of END) spawnSync('ip', ['netns', 'del', netns]);
  });

  it('sends the same bytes', async () => {
    execFileSync('sh', ['-ec', SETUP.join('\n')]);
    await expect.poll(() => END.every(hears), { timeout: 10_000 }).toBe(true);
    const backend = makeLinuxBackend(WHOLE);
    try {
      for (const target of ['10.9.0.2', 'fd09::2']) {
        const host = observeWhole(backend, END);
        const journey = travel(makeWorld(host), { netns: A, destination: parseIp(target) });
        const simulated = capture(hopsOf(journey), 0);
        const sent = await captureOf(target);
        expect(simulated).toHaveLength(4);
        expect(simulated.map(({ bytes }) => comparable(bytes))).toEqual(sent.map(comparable));
      }
    } finally {
      backend.close();
    }
  });
});
