/** Frames as a capture file that Wireshark and tcpdump read: pcapng (draft-ietf-opsawg-pcapng), which keeps by which link each frame went. */
import { joined } from './bytes.ts';

/** A frame where it was seen. */
export interface Captured {
  /** The name that the file gives to the link. */
  readonly link: string;
  /** The frame as it is on the wire, from its Ethernet header on. */
  readonly bytes: Uint8Array;
  /** When, since 1970 in UTC. */
  readonly microseconds: number;
}

const BLOCK = { section: 0x0a0d0d0a, link: 1, packet: 6 } as const;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const LINKTYPE_ETHERNET = 1;

/** What tcpdump asks for by default: no frame was cut. */
const SNAP_BYTES = 262_144;

const OPTION = { end: 0, name: 2 } as const;

function words16(...values: readonly number[]): Uint8Array {
  return Uint8Array.from(values.flatMap((value) => [value, value >>> 8]));
}

function words32(...values: readonly number[]): Uint8Array {
  return Uint8Array.from(
    values.flatMap((value) => [value, value >>> 8, value >>> 16, value >>> 24]),
  );
}

/** Filled up to a multiple of four bytes. */
function padded(bytes: Uint8Array): Uint8Array {
  return joined(bytes, new Uint8Array((4 - (bytes.length % 4)) % 4));
}

/** §3.1: the length is before and after what is in it, so that a file can be read backwards. */
function block(type: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const body = padded(joined(...parts));
  const length = words32(body.length + 12);
  return joined(words32(type), length, body, length);
}

/** §4.1: version 1.0, of a length that is not said. */
function section(): Uint8Array {
  return block(BLOCK.section, words32(BYTE_ORDER_MAGIC), words16(1, 0), words32(-1, -1));
}

/** §4.2. Times are in microseconds where nothing else is said. */
function linkBlock(name: string): Uint8Array {
  const text = new TextEncoder().encode(name);
  return block(
    BLOCK.link,
    words16(LINKTYPE_ETHERNET, 0),
    words32(SNAP_BYTES),
    words16(OPTION.name, text.length),
    padded(text),
    words16(OPTION.end, 0),
  );
}

/** §4.3. */
function packetBlock({ bytes, microseconds }: Captured, link: number): Uint8Array {
  const high = Math.floor(microseconds / 2 ** 32);
  return block(
    BLOCK.packet,
    words32(link, high, microseconds % 2 ** 32, bytes.length, bytes.length),
    bytes,
  );
}

/** The name of the link in a file without any frame: readers want one link at least. */
const NO_LINK = 'none';

/** A pcapng file of these frames, in their order, little endian. */
export function pcap(packets: readonly Captured[]): Uint8Array {
  const links = [...new Set(packets.map(({ link }) => link))];
  return joined(
    section(),
    ...(links.length > 0 ? links : [NO_LINK]).map(linkBlock),
    ...packets.map((packet) => packetBlock(packet, links.indexOf(packet.link))),
  );
}
