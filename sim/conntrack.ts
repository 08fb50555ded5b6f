/** Connections that a netns tracks, and how their packets are told (net/netfilter/nf_conntrack_core.c). */
import { type Netns, type NetnsName, getNetns } from '../model/host.ts';
import { type Family, type Ip, familyOf } from '../model/ip.ts';
import type { Statement, Table } from '../model/nftables.ts';
import { type Phase, timeoutMs } from './connection-timeout.ts';
import { type IpPacket, isAcknowledgement, isLaterFragment, isNeighbourMessage } from './frame.ts';
import type { World } from './world.ts';

/** What the packets of one direction of a connection have in common. An echo has its id for both ports. */
export interface Tuple {
  readonly protocol: 'icmp' | 'udp' | 'tcp';
  readonly source: Ip;
  readonly sourcePort: number;
  readonly destination: Ip;
  readonly destinationPort: number;
}

export type Direction = 'original' | 'reply';

/** A connection: what its first packet was, and what answers are, which differ by more than the direction where addresses are translated. */
export interface Connection {
  readonly original: Tuple;
  readonly reply: Tuple;
  /** Has it been decided, by its first packet, whether the address is translated from which it comes, and that to which it goes? */
  readonly decided: { readonly source: boolean; readonly destination: boolean };
}

/** What a packet is to its connection. */
export interface Track {
  readonly connection: Connection;
  readonly direction: Direction;
  /** Is it the first packet, and on its way still? */
  readonly isNew: boolean;
  /** Has a packet of the other direction come? */
  readonly isAnswered: boolean;
  /** Is it an error about a packet of the connection, in the direction that would answer that one? */
  readonly isRelated?: true;
}

/** A connection that a netns keeps, by the tuple of one of its directions. Times are in milliseconds since the world began. */
export interface Kept {
  readonly connection: Connection;
  readonly direction: Direction;
  readonly isAnswered: boolean;
  readonly phase: Phase;
  readonly beganMs: number;
  /** Until when it is kept if no other packet of it comes. */
  readonly untilMs: number;
}

/** By netns and the text of either tuple. */
export type Connections = Readonly<Record<NetnsName, Readonly<Record<string, Kept>>>>;

/** The tuple of a packet; undefined for one that is not tracked, as neighbour messages are not, and for a later fragment, which an error may quote. */
function tupleOf(packet: IpPacket): Tuple | undefined {
  const { source, destination, message } = packet;
  if (isNeighbourMessage(message) || message.kind === 'error') return undefined;
  if (isLaterFragment(packet)) return undefined;
  if (!('sourcePort' in message))
    return {
      protocol: 'icmp',
      source,
      sourcePort: message.id,
      destination,
      destinationPort: message.id,
    };
  const { kind, sourcePort, destinationPort } = message;
  return {
    protocol: kind === 'tcp' || kind === 'reset' ? 'tcp' : 'udp',
    source,
    sourcePort,
    destination,
    destinationPort,
  };
}

/** The tuple of packets that go the other way. */
export function inverse(tuple: Tuple): Tuple {
  return {
    protocol: tuple.protocol,
    source: tuple.destination,
    sourcePort: tuple.destinationPort,
    destination: tuple.source,
    destinationPort: tuple.sourcePort,
  };
}

function textOf(tuple: Tuple): string {
  const { protocol, source, sourcePort, destination, destinationPort } = tuple;
  return `${protocol} ${source} ${sourcePort} ${destination} ${destinationPort}`;
}

/** The connection whose packets, one way or the other, have this tuple. */
function findKept({ connections, nowMs }: World, netns: NetnsName, tuple: Tuple): Kept | undefined {
  const kept = connections[netns]?.[textOf(tuple)];
  return kept && nowMs < kept.untilMs ? kept : undefined;
}

/** Is there a connection whose packets, one way or the other, have this tuple? */
export function isKnown(world: World, netns: NetnsName, tuple: Tuple): boolean {
  return findKept(world, netns, tuple) !== undefined;
}

/** Can a packet of this kind begin a connection? An answer over ICMP or TCP cannot (icmp_new, tcp_new); what acknowledges one can, of a connection that was open before it is tracked, unless that is switched off. */
function begins({ sysctls }: Netns, { message }: IpPacket): boolean {
  if (isAcknowledgement(message)) return sysctls['net/netfilter/nf_conntrack_tcp_loose'] !== '0';
  const { kind } = message;
  return kind === 'echo request' || kind === 'udp' || kind === 'vxlan' || isSyn(message);
}

function isSyn(message: IpPacket['message']): boolean {
  return message.kind === 'tcp' && message.flags === 'syn';
}

/** An error belongs to the connection of which what it quotes is a packet, if it goes to whom answers would (nf_conntrack_inet_error). */
function trackError(
  world: World,
  netns: NetnsName,
  destination: Ip,
  quoted: IpPacket,
): Track | undefined {
  const tuple = tupleOf(quoted);
  const kept = tuple && findKept(world, netns, inverse(tuple));
  if (kept?.connection[kept.direction].destination !== destination) return undefined;
  const { connection, direction, isAnswered } = kept;
  return { connection, direction, isAnswered, isNew: false, isRelated: true };
}

/** Does it acknowledge an answer that has not come by here (nf_conntrack_proto_tcp.c, sIV)? */
function isOutOfTurn({ direction, phase }: Kept, { message }: IpPacket): boolean {
  return direction === 'original' && phase === 'asked' && isAcknowledgement(message);
}

/** What a packet is to the connections of a netns; undefined where it is of none and begins none. */
export function track(world: World, netns: NetnsName, packet: IpPacket): Track | undefined {
  const { destination, message } = packet;
  if (message.kind === 'error') return trackError(world, netns, destination, message.quoted);
  const tuple = tupleOf(packet);
  if (!tuple) return undefined;
  const kept = findKept(world, netns, tuple);
  if (kept) {
    const { connection, direction } = kept;
    if (isOutOfTurn(kept, packet)) return undefined;
    const isAnswered = kept.isAnswered || direction === 'reply';
    return { connection, direction, isAnswered, isNew: false };
  }
  if (!begins(getNetns(world.host, netns), packet)) return undefined;
  const connection = {
    original: tuple,
    reply: inverse(tuple),
    decided: { source: false, destination: false },
  };
  return { connection, direction: 'original', isNew: true, isAnswered: false };
}

/** What an error, or a refusal, is to the connection of the packet that it is about, also where that one is not kept yet (nf_conntrack_attach). */
export function relatedTo({ connection, direction, isAnswered }: Track): Track {
  const back = direction === 'original' ? 'reply' : 'original';
  return { connection, direction: back, isNew: false, isAnswered, isRelated: true };
}

function withKept(world: World, netns: NetnsName, kept: Omit<Kept, 'direction'>): World {
  const { original, reply } = kept.connection;
  const known = {
    ...world.connections[netns],
    [textOf(original)]: { ...kept, direction: 'original' as const },
    [textOf(reply)]: { ...kept, direction: 'reply' as const },
  };
  return { ...world, connections: { ...world.connections, [netns]: known } };
}

/** A new connection is kept when its first packet leaves the netns, or arrives in it (nf_confirm). */
export function confirm(
  world: World,
  netns: NetnsName,
  connection: Connection,
  { message }: IpPacket,
): World {
  const beganMs = world.nowMs;
  const phase: Phase = isAcknowledgement(message) ? 'open' : 'asked';
  const lastsMs = timeoutMs(getNetns(world.host, netns), connection.original, phase);
  const kept = { connection, isAnswered: false, phase, beganMs, untilMs: beganMs + lastsMs };
  return withKept(world, netns, kept);
}

/** How long a connection over UDP has to last until it is taken for a stream (nf_conntrack_udp_packet). */
const STREAM_AFTER_MS = 2000;

/** Where a connection is after a packet of it. */
function phaseAfter({ message }: IpPacket, kept: Kept, nowMs: number): Phase {
  const { isAnswered, beganMs, phase, direction, connection } = kept;
  switch (connection.original.protocol) {
    case 'icmp':
      return phase;
    // The first answer changes nothing yet.
    case 'udp':
      return isAnswered && nowMs > beganMs + STREAM_AFTER_MS ? 'open' : phase;
    case 'tcp':
      if (isAcknowledgement(message)) return 'open';
      return direction === 'reply' && phase === 'asked' ? 'answered' : phase;
  }
}

/** A connection that is kept is so for longer when a packet of it comes, and goes with the refusal of what it began with (nf_conntrack_tcp_packet). */
export function refresh(world: World, netns: NetnsName, packet: IpPacket): World {
  const { message } = packet;
  const tuple = message.kind === 'error' ? undefined : tupleOf(packet);
  const kept = tuple && findKept(world, netns, tuple);
  if (!kept || isOutOfTurn(kept, packet)) return world;
  const { direction, ...record } = kept;
  const isReply = direction === 'reply';
  if (message.kind === 'reset' && isReply && !kept.isAnswered)
    return withKept(world, netns, { ...record, untilMs: world.nowMs });
  const phase = phaseAfter(packet, kept, world.nowMs);
  const lastsMs = timeoutMs(getNetns(world.host, netns), kept.connection.original, phase);
  const isAnswered = kept.isAnswered || isReply;
  const untilMs = world.nowMs + lastsMs;
  const isSame = isAnswered === kept.isAnswered && untilMs === kept.untilMs && phase === kept.phase;
  return isSame ? world : withKept(world, netns, { ...record, isAnswered, phase, untilMs });
}

/** The connections that are still kept. */
export function lasting({ connections, nowMs }: World): Connections {
  const ofNetns = (kept: Connections[string]): Connections[string] =>
    Object.fromEntries(Object.entries(kept).filter(([, { untilMs }]) => nowMs < untilMs));
  return Object.fromEntries(
    Object.entries(connections)
      .map(([netns, kept]) => [netns, ofNetns(kept)] as const)
      .filter(([, kept]) => Object.keys(kept).length > 0),
  );
}

/** Expressions that make a netns track connections, those of iptables by their names there (nf_ct_netns_get). */
const TRACKING = new Set([
  'ct',
  'nat',
  'masq',
  'redir',
  'match conntrack',
  'match state',
  'match connmark',
  'target MASQUERADE',
  'target DNAT',
  'target SNAT',
  'target REDIRECT',
  'target CONNMARK',
]);

function isTracking(statement: Statement): boolean {
  return statement.kind === 'opaque'
    ? TRACKING.has(statement.expression)
    : statement.kind === 'masquerade' || statement.kind === 'dnat';
}

/** Does a table see packets of the family? */
export function seesFamily({ family }: Pick<Table, 'family'>, of: Family): boolean {
  return family === 'inet' || family === (of === 4 ? 'ip' : 'ip6');
}

/** Are the netns's connections of a family tracked? Only where a rule asks for it (K-8.2). */
export function isTracked({ nftables }: Netns, family: Family): boolean {
  return Object.values(nftables).some(
    (table) =>
      seesFamily(table, family) &&
      Object.values(table.chains).some(({ rules }) =>
        rules.some(({ statements }) => statements.some(isTracking)),
      ),
  );
}

/** Is the packet of a family? Of its addresses both are. */
export function packetFamily({ destination }: IpPacket): Family {
  return familyOf(destination);
}
