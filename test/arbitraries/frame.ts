/** Frames of every kind that the simulator sends. */
import fc from 'fast-check';
import { type Family, type Ip, ipFromBits } from '../../model/ip.ts';
import { type Mac, macFromBytes } from '../../model/mac.ts';
import type { Frame, IpPacket, Packet } from '../../sim/frame.ts';

function bytes(length: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength: length, maxLength: length });
}

function macs(): fc.Arbitrary<Mac> {
  return bytes(6).map(macFromBytes);
}

function ips(family: Family): fc.Arbitrary<Ip> {
  const most = family === 4 ? 2n ** 32n - 1n : 2n ** 128n - 1n;
  return fc.bigInt(0n, most).map((bits) => ipFromBits(family, bits));
}

/** Every one in some runs: what fills a checksum or a field to its brim. */
const port = fc.oneof(fc.nat(0xffff), fc.constantFrom(0, 0xffff));

function messages(family: Family, depth: number): fc.Arbitrary<IpPacket['message']> {
  const payloadBytes = fc.nat(40);
  const echo = fc.record({
    kind: fc.constantFrom('echo request' as const, 'echo reply' as const),
    id: port,
    payloadBytes,
  });
  const ported = {
    sourcePort: port,
    destinationPort: port,
    payloadBytes,
  };
  const udp = fc.record({ kind: fc.constant('udp' as const), isAnswer: fc.boolean(), ...ported });
  const flags = fc.constantFrom('syn' as const, 'syn ack' as const, 'ack' as const);
  const tcp = fc.record({ kind: fc.constant('tcp' as const), flags, ...ported });
  const reset = fc.record({
    kind: fc.constant('reset' as const),
    sourcePort: port,
    destinationPort: port,
  });
  const solicitation = fc.record({
    kind: fc.constant('solicitation' as const),
    target: ips(6),
    mac: macs(),
  });
  const advertisement = fc.record({
    kind: fc.constant('advertisement' as const),
    target: ips(6),
    mac: macs(),
    isSolicited: fc.boolean(),
    overrides: fc.boolean(),
  });
  const neighbour = fc.oneof(solicitation, advertisement);
  const vxlan = fc.record({
    kind: fc.constant('vxlan' as const),
    sourcePort: port,
    destinationPort: fc.constantFrom(4789, 8472),
    vni: fc.nat(0xffffff),
    frame: fc.constant(null).chain(() => frames(depth - 1)),
  });
  return fc.oneof(
    echo,
    udp,
    tcp,
    reset,
    ...(family === 6 ? [neighbour] : []),
    ...(depth > 0 ? [vxlan] : []),
  );
}

/** IP packets; those of vxlans hold others, up to so many times. */
export function ipPackets(depth = 2): fc.Arbitrary<IpPacket> {
  return fc.constantFrom<Family>(4, 6).chain((family) =>
    fc.record({
      kind: fc.constant('ip' as const),
      source: ips(family),
      destination: ips(family),
      ttl: fc.integer({ min: 1, max: 255 }),
      dontFragment: fc.boolean(),
      message: messages(family, depth),
    }),
  );
}

/** Ethernet frames, some with a tag. */
export function frames(depth = 2): fc.Arbitrary<Frame> {
  const arp = fc.record({
    kind: fc.constant('arp' as const),
    operation: fc.constantFrom('request' as const, 'reply' as const),
    senderMac: macs(),
    senderIp: ips(4),
    targetIp: ips(4),
  });
  return fc.record(
    {
      kind: fc.constant('frame' as const),
      source: macs(),
      destination: macs(),
      packet: fc.oneof<fc.Arbitrary<Packet>[]>(arp, ipPackets(depth)),
      tag: fc.integer({ min: 1, max: 4094 }),
    },
    { requiredKeys: ['kind', 'source', 'destination', 'packet'] },
  );
}
