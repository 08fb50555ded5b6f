/** What matches of iptables say about a packet (net/netfilter/xt_*.c); undefined where that is not known. */
import { ipBytes as addressBytes } from '../model/ip.ts';
import { type Masked, type XtMatch, fromHex } from '../model/nft-expression.ts';
import type { Direction, Tuple } from './conntrack.ts';
import { isLaterFragment } from './frame.ts';
import { l4Protocol, transportBytes } from './packet-bytes.ts';
import { oncePer } from './remembered.ts';
import { type Seen, addressType, connectionState, connectionStatus } from './seen.ts';

function within(value: number, [first, last]: readonly [number, number]): boolean {
  return value >= first && value <= last;
}

/** Source and destination port of UDP or TCP, which a later fragment does not have. None of ours begins where that would be an attack (xt_tcpudp.c: fragoff 1). */
function portsOf({ packet }: Seen): readonly [number, number] | undefined {
  if (packet.kind !== 'ip' || isLaterFragment(packet)) return undefined;
  const { message } = packet;
  return 'sourcePort' in message ? [message.sourcePort, message.destinationPort] : undefined;
}

/** XT_CONNTRACK_*. */
const ASKS = {
  state: 0x1,
  protocol: 0x2,
  status: 0x40,
  expires: 0x80,
  direction: 0x1000,
} as const;
/** For whom the address is asked, by its flag. */
const ADDRESSES = [
  { flag: 0x4, direction: 'original', side: 'source' },
  { flag: 0x8, direction: 'original', side: 'destination' },
  { flag: 0x10, direction: 'reply', side: 'source' },
  { flag: 0x20, direction: 'reply', side: 'destination' },
] as const;
const PORTS = [
  { flag: 0x100, direction: 'original', side: 'sourcePort' },
  { flag: 0x200, direction: 'original', side: 'destinationPort' },
  { flag: 0x400, direction: 'reply', side: 'sourcePort' },
  { flag: 0x800, direction: 'reply', side: 'destinationPort' },
] as const;

/** iptables' bits beyond those of the states (xt_conntrack.h): XT_CONNTRACK_STATE_SNAT, _DNAT and _UNTRACKED. */
const XT_STATE = { snat: 0x40, dnat: 0x80, untracked: 0x100 } as const;
/** IPS_SRC_NAT, IPS_DST_NAT. */
const IPS = { snat: 16, dnat: 32 } as const;

function xtState(seen: Seen): number {
  const status = connectionStatus(seen) ?? 0;
  return (
    connectionState(seen, XT_STATE.untracked) |
    ((status & IPS.snat) === 0 ? 0 : XT_STATE.snat) |
    ((status & IPS.dnat) === 0 ? 0 : XT_STATE.dnat)
  );
}

const bytesOf = oncePer(({ value, mask }: Masked) => ({
  wanted: fromHex(value),
  bits: fromHex(mask),
}));

function isMasked(bytes: Uint8Array, masked: Masked): boolean {
  const { wanted, bits } = bytesOf(masked);
  return bytes.every((byte, i) => (byte & (bits[i] ?? 0)) === ((wanted[i] ?? 0) & (bits[i] ?? 0)));
}

type Conntrack = XtMatch & { readonly match: 'conntrack' };

/** What conntrack_mt asks of a packet that has a connection. */
function ofConnection(
  seen: Seen,
  { asks, inverts, ...info }: Conntrack,
  tuples: Readonly<Record<Direction, Tuple>>,
  direction: Direction,
): boolean {
  const meets = (flag: number, answer: () => boolean): boolean =>
    (asks & flag) === 0 || answer() === ((inverts & flag) === 0);
  return (
    meets(ASKS.direction, () => direction === 'original') &&
    meets(ASKS.protocol, () => l4Protocol(seen) === info.protocol) &&
    meets(ASKS.status, () => ((connectionStatus(seen) ?? 0) & info.statuses) !== 0) &&
    ADDRESSES.every((each) =>
      meets(each.flag, () => {
        const bytes = addressBytes(tuples[each.direction][each.side]);
        return isMasked(bytes, info[each.direction][each.side]);
      }),
    ) &&
    PORTS.every((each, i) =>
      meets(each.flag, () => {
        const range = info.ports[i] ?? ([0, 0] as const);
        return within(tuples[each.direction][each.side], range);
      }),
    )
  );
}

function conntrack(seen: Seen, match: Conntrack): boolean | undefined {
  const { asks, inverts, states } = match;
  if ((asks & ASKS.state) !== 0) {
    const has = (states & xtState(seen)) !== 0;
    if (has === ((inverts & ASKS.state) !== 0)) return false;
  }
  const track = seen.packet.kind === 'ip' ? seen.packet.skb?.track : undefined;
  if (!track) return (asks & ASKS.state) !== 0;
  if ((asks & ASKS.expires) !== 0) return undefined;
  return ofConnection(seen, match, track.connection, track.direction);
}

/** XT_ADDRTYPE_*. */
const INVERT_SOURCE = 1;
const INVERT_DESTINATION = 2;

function addrtype(
  { netns, packet }: Seen,
  { source, destination, flags }: XtMatch & { readonly match: 'addrtype' },
): boolean | undefined {
  // Only addresses of one link count.
  if ((flags & ~(INVERT_SOURCE | INVERT_DESTINATION)) !== 0) return undefined;
  if (packet.kind !== 'ip') return false;
  const has = (mask: number, ip: typeof packet.source): boolean =>
    (mask & (1 << addressType(netns, ip))) !== 0;
  const isSource = source === 0 || has(source, packet.source) === ((flags & INVERT_SOURCE) === 0);
  return (
    isSource &&
    (destination === 0 ||
      has(destination, packet.destination) === ((flags & INVERT_DESTINATION) === 0))
  );
}

function multiport(
  seen: Seen,
  { of, ports, invert }: XtMatch & { readonly match: 'multiport' },
): boolean {
  const own = portsOf(seen);
  if (!own) return false;
  const [source, destination] = own;
  const asked =
    of === 'either' ? [source, destination] : of === 'source' ? [source] : [destination];
  return asked.some((port) => ports.some((range) => within(port, range))) !== invert;
}

const ANY_ICMP = 255;

function icmp(seen: Seen, match: XtMatch & { readonly match: 'icmp' }): boolean {
  const protocol = l4Protocol(seen);
  if (protocol !== 1 && protocol !== 58) return false;
  const bytes = transportBytes(seen);
  if (!bytes) return false;
  const [type = 0, code = 0] = bytes;
  const isOf = match.type === ANY_ICMP || (match.type === type && within(code, match.codes));
  return isOf !== match.invert;
}

/** XT_TCP_INV_*, the first two of which XT_UDP_INV_* are too. */
const INVERT = { source: 1, destination: 2, flags: 4 } as const;
/** Where the flags of TCP lie in its header. */
const FLAGS_AT = 13;

function ported(seen: Seen, match: XtMatch & { readonly match: 'tcp' | 'udp' }): boolean {
  const ports = portsOf(seen);
  if (!ports || l4Protocol(seen) !== (match.match === 'tcp' ? 6 : 17)) return false;
  const is = (flag: number, answer: boolean): boolean => answer === ((match.inverts & flag) === 0);
  const flags = match.match === 'tcp' ? (transportBytes(seen)?.[FLAGS_AT] ?? 0) : 0;
  return (
    is(INVERT.source, within(ports[0], match.source)) &&
    is(INVERT.destination, within(ports[1], match.destination)) &&
    (match.match === 'udp' || is(INVERT.flags, (flags & match.flagsMask) === match.flags))
  );
}

/** Numbers that xt_statistic draws are below this one. */
const DRAWN_BELOW = 2 ** 31;

/** Does the packet meet a match of iptables? */
export function meetsMatch(seen: Seen, match: XtMatch): boolean | undefined {
  switch (match.match) {
    case 'conntrack':
      return conntrack(seen, match);
    case 'addrtype':
      return addrtype(seen, match);
    case 'mark':
      return ((seen.mark & match.mask) >>> 0 === match.mark) !== match.invert;
    case 'multiport':
      return multiport(seen, match);
    case 'statistic': {
      const drawn = seen.draw();
      const has =
        match.mode === 'random'
          ? drawn * DRAWN_BELOW < match.probability
          : Math.floor(drawn * (match.every + 1)) === match.packet;
      return has !== match.invert;
    }
    case 'icmp':
      return icmp(seen, match);
    case 'tcp':
    case 'udp':
      return ported(seen, match);
  }
}
