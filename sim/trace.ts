/** The answer to "what becomes of this packet": every hop with its decision, and one verdict. */
import type { NetnsName } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { Ip } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import type { Mac } from '../model/mac.ts';
import type { NftFamily } from '../model/nftables.ts';
import type { Route } from '../model/route.ts';
import { type ErrorKind, type Frame, type Packet, formatPacket } from './frame.ts';
import type { LegacyTable, UnreadHook } from './legacy-table.ts';
import type { DropReason } from './reason.ts';
import type { World } from './world.ts';

/** A part of a packet's way where something is decided. */
export type Stage =
  | 'send'
  | 'route'
  | 'netfilter'
  | 'neighbour'
  | 'transmit'
  | 'bridge'
  | 'receive'
  | 'arp'
  | 'nd'
  | 'forward'
  | 'deliver';

/** The question that a decision answers, with what was found: null where nothing was. */
export type LookedUp =
  | { readonly kind: 'route'; readonly destination: Ip; readonly found: Route | null }
  | { readonly kind: 'neighbour'; readonly ip: Ip; readonly found: Mac | null }
  /** Is the MAC address that a frame is for the link's own? */
  | { readonly kind: 'own mac'; readonly mac: Mac; readonly found: null }
  | {
      readonly kind: 'fdb';
      readonly mac: Mac;
      /** A port, or `local`: the bridge takes the frame itself. */
      readonly found: { readonly port: Ifname } | 'local' | null;
    }
  | {
      readonly kind: 'chain';
      readonly family: NftFamily;
      readonly table: string;
      readonly chain: string;
      /** The place of the rule in its chain, from 1; null: the policy. */
      readonly rule: number | null;
    }
  | {
      /** A table of iptables-legacy, or of nft, whose rules are not read. */
      readonly kind: 'legacy table';
      readonly program?: 'nft';
      readonly family: LegacyTable['family'];
      readonly table: string;
      readonly hook: UnreadHook;
    };

export interface Hop {
  readonly netns: NetnsName;
  /** Null where no link is involved yet, or none is meant. */
  readonly link: Ifname | null;
  readonly stage: Stage;
  /** The rule about Linux that the decision follows, `K-6.3`; null where it needs none. */
  readonly rule: string | null;
  /** In words: what happens here, and because of what. */
  readonly decision: string;
  readonly lookedUp: LookedUp | null;
  /** Why this copy ends here; absent: it does not, or goes where nobody knows. */
  readonly dropped?: DropReason;
  /** How long after the first, in milliseconds; absent: no time has passed. */
  readonly afterMs?: number;
  /** What was there at this point: a frame on a link, a packet above it. */
  readonly data: Frame | Packet;
}

/** How it ended. */
export type Verdict =
  /** The sender has the reply. */
  | { readonly kind: 'delivered' }
  /** No reply: where the request or the reply was lost, and why. */
  | {
      readonly kind: 'dropped';
      readonly reason: DropReason;
      readonly netns: NetnsName;
      readonly link: Ifname | null;
      readonly text: string;
      /** The link that is to blame, where that is not the one at which it happens. */
      readonly about?: LinkRef;
      readonly lookedUp?: LookedUp;
      /** How another packet ended, without which this one had to. */
      readonly because?: Verdict & { readonly kind: 'dropped' };
    }
  /** The packet went where this host cannot be followed, or needs what is not modelled. */
  | {
      readonly kind: 'unknown';
      readonly netns: NetnsName;
      readonly link: Ifname | null;
      readonly text: string;
      /** It leaves this host by the link, from and for whom it says then. */
      readonly leaves?: { readonly source: Ip; readonly destination: Ip };
    };

/** The ICMP error, or the RST of TCP, by which the sender learns that its question does not arrive. */
export interface SenderError {
  readonly from: Ip;
  readonly error: ErrorKind | 'connection refused';
  /** Of what is too big: what would not be; else null. */
  readonly mtuBytes: number | null;
}

/** What became of a probe. */
export interface Outcome {
  readonly verdict: Verdict;
  /** Null: the sender hears of none, and waits. What its own kernel refuses it knows without one. */
  readonly error: SenderError | 'unknown' | null;
  /** How often a rule has drawn something by chance, or by what it has counted. */
  readonly draws: number;
  /** With what was learned on the way. */
  readonly world: World;
}

/** The same, with how it came to that. */
export interface Trace extends Outcome {
  readonly hops: readonly Hop[];
  /** Hops of flooded copies that went on after the verdict was certain; they are not in `hops`. */
  readonly laterHops: number;
}

/** `host br0`: a place in a trace. */
export function formatPlace(place: {
  readonly netns: NetnsName;
  readonly link: Ifname | null;
}): string {
  return place.link === null ? place.netns : `${place.netns} ${place.link}`;
}

/** A verdict in one line. */
export function formatVerdict(verdict: Verdict): string {
  switch (verdict.kind) {
    case 'delivered':
      return 'delivered: the sender has the reply';
    case 'dropped':
      return `dropped in ${formatPlace(verdict)}: ${verdict.reason}, ${verdict.text}`;
    case 'unknown':
      return `unknown beyond ${formatPlace(verdict)}: ${verdict.text}`;
  }
}

/** `10.0.0.1 tells the sender: time exceeded`. */
export function formatSenderError({ from, error, mtuBytes }: SenderError): string {
  const mtu = mtuBytes === null ? '' : `, the mtu is ${mtuBytes}`;
  return `${from} tells the sender: ${error}${mtu}`;
}

function formatData(data: Frame | Packet): string {
  return formatPacket(data.kind === 'frame' ? data.packet : data);
}

/** How long it took until then, where it was not so long yet in the line above. */
function formatTime({ afterMs = 0 }: Hop, above: Hop | undefined): string {
  if (afterMs === (above?.afterMs ?? 0)) return '';
  return afterMs % 1000 === 0 ? `after ${afterMs / 1000} s: ` : `after ${afterMs} ms: `;
}

function rowOf(hop: Hop, packet: string, above: Hop | undefined): readonly string[] {
  const decision = `${formatTime(hop, above)}${hop.decision}`;
  return [
    formatPlace(hop),
    hop.stage,
    packet,
    hop.rule === null ? decision : `${decision} (${hop.rule})`,
  ];
}

/** Hops for a terminal, a line each in aligned columns. */
export function formatHops(hops: readonly Hop[]): string[] {
  const packets = hops.map(({ data }) => formatData(data));
  const rows = hops.map((hop, index) => {
    const packet = packets[index] ?? '';
    // What is as in the line above is left out, so that changes stand out.
    return rowOf(hop, packet === packets[index - 1] ? '' : packet, hops[index - 1]);
  });
  const widths = [0, 1, 2].map((column) =>
    Math.max(0, ...rows.map((row) => (row[column] ?? '').length)),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

/** A trace for a terminal: its hops, then the verdict. */
export function formatTrace(trace: Trace): string {
  const later =
    trace.laterHops === 0 ? '' : ` (${trace.laterHops} later hops of flooded copies are not shown)`;
  return [...formatHops(trace.hops), `${formatVerdict(trace.verdict)}${later}`, ''].join('\n');
}
