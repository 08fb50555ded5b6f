import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseIfname } from '../../model/ifname.ts';
import { familyOf, parseIp } from '../../model/ip.ts';
import { frameBytes, ipBytes } from '../../sim/bytes.ts';
import { capture } from '../../sim/capture.ts';
import {
  type Frame,
  type IpPacket,
  type Packet,
  formatPacket,
  packetBytes,
} from '../../sim/frame.ts';
import { hopsOf, travel } from '../../sim/journey.ts';
import { pcap } from '../../sim/pcap.ts';
import { makeWorld } from '../../sim/world.ts';
import { frames, ipPackets } from '../arbitraries/frame.ts';
import { fragments } from '../arbitraries/sized-packet.ts';
import { dissect } from './dissect.ts';
import { ROUTED } from './hosts.ts';
import { applyAll } from './pods.ts';
import { TUNNEL_CASES, TUNNEL_TARGET } from './tunnels.ts';

/** By whether one is solicited, and overrides. */
const ADVERTISEMENT_FLAGS: Readonly<Record<string, string>> = {
  'false false': '0',
  'true false': '40000000',
  'false true': '20000000',
  'true true': '60000000',
};

/** What each segment of a handshake acknowledges: initial numbers are 1000 and 2000. */
const ACKNOWLEDGED = { syn: 0, 'syn ack': 1001, ack: 2001 } as const;

/** What `formatPacket` leaves out, in the words of `dissect`. */
function detail(packet: IpPacket): string {
  const { message } = packet;
  switch (message.kind) {
    case 'echo request':
    case 'echo reply':
      return ` id ${message.id} seq 1 with ${message.payloadBytes}`;
    case 'udp':
      return ` with ${message.payloadBytes}`;
    case 'tcp':
      return ` ack ${ACKNOWLEDGED[message.flags]} with ${message.payloadBytes}`;
    case 'solicitation':
      return ` option 1 of 8 ${message.mac} flags 0`;
    case 'advertisement':
      return ` option 2 of 8 flags ${ADVERTISEMENT_FLAGS[`${message.isSolicited} ${message.overrides}`]}`;
    case 'reset':
      return ' ack 1001 with 0';
    case 'vxlan':
    case 'error':
      return '';
  }
}

function packetText(packet: Packet): string {
  if (packet.kind === 'arp')
    return `${formatPacket(packet)} ${packet.operation === 'request' ? `from ${packet.senderMac}` : `to ${packet.targetIp}`}`;
  const { message, source, destination, ttl } = packet;
  const fixed = `ttl ${ttl}${familyOf(destination) === 4 && packet.dontFragment ? ' df' : ''} `;
  if (message.kind !== 'vxlan') return `${fixed}${formatPacket(packet)}${detail(packet)}`;
  const ports = `from ${message.sourcePort} to ${message.destinationPort}`;
  return `${fixed}vxlan ${message.vni} ${source} > ${destination} ${ports} (${frameText(message.frame)})`;
}

function frameText({ source, destination, tag, packet }: Frame): string {
  return `${source} > ${destination} ${tag === undefined ? '' : `vlan ${tag} `}${packetText(packet)}`;
}

/** A UDP port of a vxlan with something else behind it would be read as one. */
function isPlain(frame: Frame): boolean {
  const { packet } = frame;
  if (packet.kind === 'arp') return true;
  const { message } = packet;
  if (message.kind === 'vxlan') return isPlain(message.frame);
  return message.kind !== 'udp' || ![4789, 8472].includes(message.destinationPort);
}

/** The checksum field of a datagram. */
function sumOf(sourcePort: number): number {
  const bytes = ipBytes({
    kind: 'ip',
    source: parseIp('10.0.0.1'),
    destination: parseIp('10.0.0.2'),
    ttl: 64,
    dontFragment: true,
    message: { kind: 'udp', sourcePort, destinationPort: 53, isAnswer: false, payloadBytes: 0 },
  });
  return ((bytes[26] ?? 0) << 8) | (bytes[27] ?? 0);
}

describe('a packet in bytes', () => {
  it('is as long as the MTU takes it to be', () => {
    fc.assert(
      fc.property(ipPackets(), (packet) => {
        expect(ipBytes(packet)).toHaveLength(packetBytes(packet));
      }),
    );
  });

  it('has the header of a fragment, and as much of it as that carries', () => {
    fc.assert(
      fc.property(fragments(), (packet) => {
        const { fragment, destination } = packet;
        if (!fragment) throw new Error('it is none');
        const bytes = Buffer.from(ipBytes(packet));
        expect(bytes).toHaveLength(packetBytes(packet));
        const { fragment: _, ...all } = packet;
        const whole = ipBytes(all);
        const { identification, offsetBytes, dataBytes, hasMore } = fragment;
        const is4 = familyOf(destination) === 4;
        const data = whole.subarray((is4 ? 20 : 40) + offsetBytes).subarray(0, dataBytes);
        expect(bytes.subarray(is4 ? 20 : 48).equals(data)).toBe(true);
        if (is4) {
          expect(bytes.readUInt16BE(2)).toBe(bytes.length);
          expect(bytes.readUInt16BE(4)).toBe(identification);
          // RFC 791 §3.1: three bits of flags, the last of which is MF.
          expect(bytes.readUInt16BE(6)).toBe((hasMore ? 0x2000 : 0) + offsetBytes / 8);
          expect(bytes[9]).toBe(whole[9]);
        } else {
          expect(bytes.readUInt16BE(4)).toBe(bytes.length - 40);
          // RFC 8200 §4.5: the header of a fragment is 44; an offset, two bits that are 0, and M.
          expect([bytes[6], bytes[40], bytes[41]]).toEqual([44, whole[6], 0]);
          expect(bytes.readUInt16BE(42)).toBe((offsetBytes / 8) * 8 + (hasMore ? 1 : 0));
          expect(bytes.readUInt32BE(44)).toBe(identification);
        }
        expect(formatPacket(packet)).toContain(
          `(frag ${identification}:${dataBytes}@${offsetBytes}${hasMore ? '+' : ''})`,
        );
      }),
      { numRuns: 200 },
    );
  });

  it('says what it is, to whoever reads it as the RFCs do', () => {
    fc.assert(
      fc.property(frames().filter(isPlain), (frame) => {
        expect(dissect(frameBytes(frame)).text).toBe(frameText(frame));
      }),
      { numRuns: 300 },
    );
  });

  it('has checksums that are right', () => {
    fc.assert(
      fc.property(frames(), (frame) => {
        const { sums } = dissect(frameBytes(frame));
        expect(sums.every((sum) => sum !== 0n && sum % 65_535n === 0n)).toBe(true);
        if (frame.packet.kind === 'ip') expect(sums).not.toHaveLength(0);
      }),
      { numRuns: 300 },
    );
  });

  it.each([
    ['10.0.0.9', 'time exceeded', null, '0b00', 0],
    ['10.0.0.9', 'net unreachable', null, '0300', 0],
    ['10.0.0.9', 'host unreachable', null, '0301', 0],
    ['10.0.0.9', 'port unreachable', null, '0303', 0],
    ['10.0.0.9', 'admin prohibited', null, '030d', 0],
    ['10.0.0.9', 'too big', 1400, '0304', 1400],
    ['fd00::9', 'time exceeded', null, '0300', 0],
    ['fd00::9', 'net unreachable', null, '0100', 0],
    ['fd00::9', 'host unreachable', null, '0103', 0],
    ['fd00::9', 'port unreachable', null, '0104', 0],
    ['fd00::9', 'admin prohibited', null, '0101', 0],
    ['fd00::9', 'too big', 1280, '0200', 1280],
  ] as const)(
    'of %s: %s has its type, and quotes what it is about',
    (from, error, mtuBytes, type, mtu) => {
      const is4 = familyOf(from) === 4;
      const [source, destination] = (is4 ? ['10.0.0.1', '10.0.0.2'] : ['fd00::1', 'fd00::2']).map(
        parseIp,
      );
      if (source === undefined || destination === undefined) throw new Error('no ends');
      const message = { kind: 'echo request', id: 7, payloadBytes: 2000 } as const;
      const quoted: IpPacket = {
        kind: 'ip',
        source,
        destination,
        ttl: 1,
        dontFragment: true,
        message,
      };
      const packet: IpPacket = {
        ...quoted,
        source: parseIp(from),
        destination: source,
        message: { kind: 'error', error, mtuBytes, quoted },
      };
      const bytes = ipBytes(packet);
      const icmp = bytes.subarray(is4 ? 20 : 40);
      expect(bytes).toHaveLength(packetBytes(packet));
      expect(Buffer.from(icmp.subarray(0, 2)).toString('hex')).toBe(type);
      expect(Buffer.from(icmp).readUInt32BE(4)).toBe(mtu);
      expect(icmp.subarray(8)).toEqual(ipBytes(quoted).subarray(0, icmp.length - 8));
      // RFC 1071, with what RFC 4443 §2.3 puts before it.
      const pseudo = is4
        ? []
        : [...bytes.subarray(8, 40), 0, 0, icmp.length >> 8, icmp.length & 255, 0, 0, 0, 58];
      let sum = 0;
      for (const [at, byte] of [...pseudo, ...icmp].entries())
        sum += at % 2 === 0 ? byte * 256 : byte;
      expect(sum % 65_535).toBe(0);
    },
  );

  it('never has 0 for the sum of a UDP datagram, which would say that there is none', () => {
    // What is missing to a sum of 0 is what the field says without a source port.
    const missing = sumOf(0);
    expect(sumOf(missing - 1)).toBe(1);
    expect(sumOf(missing)).toBe(0xffff);
  });

  it('has no length where that does not fit', () => {
    const message = { kind: 'echo request', id: 1, payloadBytes: 65_508 } as const;
    const ends = { source: parseIp('127.0.0.1'), destination: parseIp('127.0.0.1') };
    const bytes = ipBytes({ kind: 'ip', ...ends, ttl: 64, dontFragment: true, message });
    expect(bytes).toHaveLength(65_536);
    expect([...bytes.subarray(0, 4)]).toEqual([0x45, 0, 0, 0]);
  });
});

/** The blocks of a pcapng file, each with its type and what is in it. */
function blocksOf(file: Uint8Array): { readonly type: number; readonly body: DataView }[] {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const blocks: { type: number; body: DataView }[] = [];
  for (let at = 0; at < file.length;) {
    const length = view.getUint32(at + 4, true);
    expect(length % 4).toBe(0);
    expect(view.getUint32(at + length - 4, true)).toBe(length);
    const body = new DataView(file.buffer, file.byteOffset + at + 8, length - 12);
    blocks.push({ type: view.getUint32(at, true), body });
    at += length;
  }
  return blocks;
}

/** Where an echo goes between the ends of the tunnel, once everybody is known. */
function way(from: string, port: string, to: string): readonly string[] {
  return [`${from}/vx0 plain`, `${from}/eth0 packed`, `node/${port} packed`, `${to}/vx0 plain`];
}

describe('a capture', () => {
  const start = 2 ** 40;

  it('gives back its frames, with their links and times', () => {
    const lists = fc.array(fc.tuple(fc.constantFrom('a/eth0', 'b/é', 'c/x'), frames(1)), {
      maxLength: 6,
    });
    fc.assert(
      fc.property(lists, (list) => {
        const packets = list.map(([link, frame], at) => ({
          link,
          bytes: frameBytes(frame),
          microseconds: start + at,
        }));
        const [section, ...blocks] = blocksOf(pcap(packets));
        expect(section?.type).toBe(0x0a0d0d0a);
        expect(section?.body.getUint32(0, true)).toBe(0x1a2b3c4d);
        const names = blocks
          .filter(({ type }) => type === 1)
          .map(({ body }) =>
            new TextDecoder().decode(
              new Uint8Array(body.buffer, body.byteOffset + 12, body.getUint16(10, true)),
            ),
          );
        const read = blocks
          .filter(({ type }) => type === 6)
          .map(({ body }) => ({
            link: names[body.getUint32(0, true)],
            microseconds: body.getUint32(4, true) * 2 ** 32 + body.getUint32(8, true),
            bytes: new Uint8Array(body.buffer, body.byteOffset + 20, body.getUint32(12, true)),
          }));
        expect(names).toHaveLength(Math.max(1, new Set(list.map(([link]) => link)).size));
        expect(read).toEqual(packets);
      }),
      { numRuns: 30 },
    );
  });

  it('has each frame where it is sent, and a vxlan both where it is packed and where unpacked', () => {
    const [tunnel] = TUNNEL_CASES;
    const host = applyAll(ROUTED, tunnel?.ops ?? []);
    const journey = travel(makeWorld(host), { netns: 'a', destination: TUNNEL_TARGET });
    const captured = capture(hopsOf(journey), start);
    const echoes = captured
      .map(({ link, bytes }) => ({ link, text: dissect(bytes).text }))
      .filter(({ text }) => text.includes('echo'))
      .map(({ link, text }) => `${link} ${text.includes('vxlan') ? 'packed' : 'plain'}`);
    expect(echoes).toEqual([...way('a', 'v-c', 'c'), ...way('c', 'v-a', 'a')]);
    expect(captured.map(({ microseconds }) => microseconds)).toEqual(
      captured.map((_, at) => start + at),
    );
  });

  it('has no frame that the queue of a link drops', () => {
    const down = { netns: 'node', ifname: parseIfname('v-b'), op: 'link.set' } as const;
    const host = applyAll(ROUTED, [{ ...down, set: { up: false } }]);
    const journey = travel(makeWorld(host), { netns: 'b', destination: parseIp('10.244.1.2') });
    expect(journey.forward.map(({ dropped }) => dropped)).toContain('QDISC_DROP');
    expect(capture(journey.forward, start)).toEqual([]);
  });
});
