/** Packets of sizes that are split, and the MTUs that split them. */
import fc from 'fast-check';
import { type Family, familyOf } from '../../model/ip.ts';
import { FRAGMENT_HEADER_BYTES, type IpPacket, dataBytes } from '../../sim/frame.ts';
import { ipPackets } from './frame.ts';

/** The smallest that a link can have (RFC 791 §3.2, RFC 8200 §5). */
export const SMALLEST_MTU = { 4: 68, 6: 1280 } as const;

/** A packet that anybody may split, up to some thousand bytes long. */
export function sizedPackets(): fc.Arbitrary<IpPacket> {
  return fc.tuple(ipPackets(1), fc.nat(9000)).map(([{ message, ...packet }, payloadBytes]) => ({
    ...packet,
    dontFragment: false,
    message: 'payloadBytes' in message ? { ...message, payloadBytes } : message,
  }));
}

export function mtus(family: Family): fc.Arbitrary<number> {
  const smallest = SMALLEST_MTU[family];
  return fc.oneof(
    fc.integer({ min: smallest, max: smallest + 64 }),
    fc.integer({ min: smallest, max: 9100 }),
  );
}

/** A packet, and MTUs of links that it comes by one after another. */
export function journeys(): fc.Arbitrary<{
  readonly packet: IpPacket;
  readonly mtuBytes: readonly number[];
}> {
  return sizedPackets().chain((packet) =>
    fc.record({
      packet: fc.constant(packet),
      mtuBytes: fc.array(mtus(familyOf(packet.destination)), { minLength: 1, maxLength: 4 }),
    }),
  );
}

/** A single fragment of a packet, wherever it lies in it. */
export function fragments(): fc.Arbitrary<IpPacket> {
  return sizedPackets().chain((packet) => {
    const data = dataBytes(packet);
    const most = 65_535 - FRAGMENT_HEADER_BYTES[familyOf(packet.destination)];
    return fc
      .record({
        identification: fc.integer({ min: 1, max: 0xffff }),
        unit: fc.nat(Math.max(0, Math.floor((data - 1) / 8))),
        bytes: fc.integer({ min: 1, max: most }),
      })
      .map(({ identification, unit, bytes }): IpPacket => {
        const offsetBytes = unit * 8;
        const left = data - offsetBytes;
        const dataSize = bytes >= left ? left : Math.min(left, Math.max(8, bytes - (bytes % 8)));
        const hasMore = offsetBytes + dataSize < data;
        return {
          ...packet,
          fragment: { identification, offsetBytes, dataBytes: dataSize, hasMore },
        };
      });
  });
}
