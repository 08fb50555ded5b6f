/** A service asked for what no rule translates, as for a ping: its address is nobody's, and the packet goes on to strangers. */
import { type Netns, type NetnsName, findNetns } from '../../model/host.ts';
import { innermost } from '../frame.ts';
import type { ProbeRequest } from '../probe.ts';
import { type PublishedPort, publishedPorts } from '../published.ts';
import { oncePer } from '../remembered.ts';
import type { Hop } from '../trace.ts';
import type { Inquiry } from './blame.ts';

export interface Untranslated {
  /** That of the rules. */
  readonly netns: NetnsName;
  /** `10.96.0.20:443/tcp`, or `a ping of 10.96.0.20`. */
  readonly asked: string;
  /** What rules translate there: `80/tcp`. */
  readonly translated: readonly string[];
}

const publishedIn = oncePer((netns: Netns): readonly PublishedPort[] => publishedPorts(netns));

/** Of more not all are named. */
const MOST_NAMED = 4;

function askedText({ destination, to }: ProbeRequest): string {
  if (!to) return `a ping of ${destination}`;
  const ip = destination.includes(':') ? `[${destination}]` : destination;
  return `${ip}:${to.port}/${to.protocol}`;
}

function isFor({ data }: Hop, { destination }: ProbeRequest): boolean {
  const packet = innermost(data.kind === 'frame' ? data.packet : data);
  return packet.kind === 'ip' && packet.destination === destination;
}

/** The first netns on the way of the question whose rules translate its destination for other ports, and not for this one. */
export function findUntranslated({ world, request, hops }: Inquiry): Untranslated | null {
  const { destination, to } = request;
  const passed = new Set(hops.filter((hop) => isFor(hop, request)).map(({ netns }) => netns));
  for (const netns of passed) {
    const state = findNetns(world.host, netns);
    const there = state ? publishedIn(state).filter(({ ip }) => ip === destination) : [];
    if (there.some(({ protocol, port }) => protocol === to?.protocol && port === to.port))
      return null;
    if (there.length > 0)
      return {
        netns,
        asked: askedText(request),
        translated: there.map(({ protocol, port }) => `${port}/${protocol}`),
      };
  }
  return null;
}

/** `no rule of netns node translates 10.96.0.20:443/tcp; 80/tcp is translated`. */
export function formatUntranslated({ netns, asked, translated }: Untranslated): string {
  const named = translated.slice(0, MOST_NAMED);
  const more = translated.length - named.length;
  const others = more === 0 ? [] : [`${more} more`];
  const ports = [...named, ...others].join(', ');
  const are = translated.length === 1 ? 'is' : 'are';
  return `no rule of netns ${netns} translates ${asked}; ${ports} ${are} translated`;
}
