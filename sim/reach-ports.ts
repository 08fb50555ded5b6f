/** Who answers at published ports: what a change of a host makes of them, by probes of the host before it and after it. */
import { type Host, type NetnsName, findNetns } from '../model/host.ts';
import { type Family, type Ip, familyOf, isLoopback, parseIp } from '../model/ip.ts';
import { arrivalOf } from './arrival.ts';
import { evenly } from './evenly.ts';
import { isMulticast, isUnspecified } from './frame.ts';
import type { LegacyTables } from './legacy-table.ts';
import { OUTSIDE, OUTSIDE_NETNS, type Surrounded, withOutside } from './outside.ts';
import { type ProbeRequest, probe } from './probe.ts';
import { type PublishedPort, formatPublished, publishedPorts } from './published.ts';
import { type Endpoint, endpointsOf, groundsOf, linkWith } from './reach.ts';
import { type UnreadTable, joined, unreadIn } from './unread.ts';
import { makeWorld } from './world.ts';

/** Who asks for a port: a netns, or with null somebody outside; an address of null: the one that its kernel chooses. */
export interface Asker {
  readonly netns: NetnsName | null;
  readonly ip: Ip | null;
}

/** Who answers for somebody else: the netns, or with null somebody outside of this host, with where the question came to. */
export interface Answerer {
  readonly netns: NetnsName | null;
  readonly ip: Ip;
  readonly port: number;
  /** Whom it takes for the sender. */
  readonly seenAs: Ip;
}

/** Null: nobody but whoever has the address, so that nothing is published there for who asks. */
export type Answer = Answerer | 'unknown' | null;

/** A port at an address, and who asks for it. */
export interface PortQuestion {
  readonly from: Asker;
  readonly protocol: 'tcp' | 'udp';
  readonly ip: Ip;
  readonly port: number;
}

/** A question that is answered otherwise after a change. */
export interface PortChange extends PortQuestion {
  readonly was: Answer;
  readonly is: Answer;
}

/** A port of which nothing is known, since packets of its protocol are not simulated. */
export interface UnaskedPort extends PublishedPort {
  readonly netns: NetnsName;
}

export interface PortDelta {
  readonly changes: readonly PortChange[];
  /** Who was asked from. */
  readonly askers: readonly Asker[];
  /** How many questions were asked. */
  readonly tried: number;
  /** How many were not, because they were too many. */
  readonly leftOut: number;
  /** Ports that come or go, and cannot be asked for. */
  readonly notAsked: readonly UnaskedPort[];
  /** What packets passed as if it let them on unchanged. */
  readonly unread: readonly UnreadTable[];
}

/** A question about a port that the rules of a netns name. */
interface Asked extends PortQuestion {
  readonly publisher: NetnsName;
}

/** What there is to ask about published ports, before and after a change: first what that is about. */
export interface PortQuestions {
  readonly near: readonly Asked[];
  readonly far: readonly Asked[];
  readonly notAsked: readonly UnaskedPort[];
}

const LOCALHOST = parseIp('127.0.0.1');

/** Hosts with somebody outside of a netns of theirs, each made once. */
class Outsides {
  readonly #known = new Map<string, Surrounded | undefined>();
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  around(netns: NetnsName, family: Family): Surrounded | undefined {
    const key = `${family} ${netns}`;
    if (!this.#known.has(key)) this.#known.set(key, withOutside(this.#host, netns, family));
    return this.#known.get(key);
  }
}

/** A host before or after a change. */
interface Side {
  readonly host: Host;
  readonly outsides: Outsides;
}

type Sides = readonly [before: Side, after: Side];

function sideOf(host: Host): Side {
  return { host, outsides: new Outsides(host) };
}

function distinct<T extends string>(all: readonly T[]): T[] {
  return [...new Set(all)].toSorted((a, b) => (a < b ? -1 : 1));
}

/** The addresses that a netns has before or after a change. */
function addressesOf(sides: Sides, netns: NetnsName, family: Family): Ip[] {
  const own = sides.flatMap(({ host }) => endpointsOf(host).filter((each) => each.netns === netns));
  return distinct(own.map(({ ip }) => ip)).filter((ip) => familyOf(ip) === family);
}

/** Somebody on a link of the netns, the same before and after: the first by name, who stands for all. */
function neighbourOf(sides: Sides, publisher: NetnsName, family: Family): Endpoint | undefined {
  const [before, after] = sides;
  return endpointsOf(before.host).find((each) => {
    if (each.netns === publisher || familyOf(each.ip) !== family) return false;
    const link = linkWith(before.host, each);
    return (
      link?.kind === 'veth' &&
      link.peer?.netns === publisher &&
      groundsOf(before.host, each) === groundsOf(after.host, each)
    );
  });
}

/** Who asks for the ports of a netns, and at which addresses of it. */
interface Ways {
  readonly from: Asker;
  readonly ips: readonly Ip[];
  /** May it ask for addresses that the netns does not have? */
  readonly asksOthers: boolean;
}

function waysTo(sides: Sides, publisher: NetnsName, family: Family): Ways[] {
  const ips = addressesOf(sides, publisher, family);
  const near = neighbourOf(sides, publisher, family);
  const seen = sides.flatMap(({ outsides }) => outsides.around(publisher, family)?.ips ?? []);
  return [
    {
      from: { netns: publisher, ip: null },
      ips: family === 4 ? [LOCALHOST, ...ips] : ips,
      asksOthers: true,
    },
    ...(near ? [{ from: near, ips, asksOthers: true }] : []),
    ...(seen.length === 0
      ? []
      : [{ from: OUTSIDE[family], ips: distinct(seen), asksOthers: false }]),
  ];
}

/** The questions about a port. */
function questionsAbout(
  publisher: NetnsName,
  { protocol, ip, port }: PublishedPort,
  ways: readonly Ways[],
): Asked[] {
  if (protocol === 'sctp' || (ip !== null && (isMulticast(ip) || isUnspecified(ip)))) return [];
  return ways.flatMap(({ from, ips, asksOthers }) => {
    const isOwn = from.netns === publisher;
    const mayAsk = ip !== null && (isLoopback(ip) ? isOwn : asksOthers || ips.includes(ip));
    const asked = ip === null ? ips : mayAsk ? [ip] : [];
    return asked.map((each) => ({ publisher, from, protocol, ip: each, port }));
  });
}

function portsIn(host: Host, netns: NetnsName): Map<string, PublishedPort> {
  const state = findNetns(host, netns);
  const ports = state ? publishedPorts(state) : [];
  return new Map(ports.map((each) => [formatPublished(each), each]));
}

/** Two questions are one where the same is asked by the same. */
function keyOf({ publisher, from, protocol, ip, port }: Asked): string {
  return `${publisher} ${from.netns} ${from.ip} ${protocol} ${ip} ${port}`;
}

function once(questions: readonly Asked[], but: readonly Asked[] = []): Asked[] {
  const known = new Set(but.map(keyOf));
  return [...new Map(questions.map((each) => [keyOf(each), each]))]
    .filter(([key]) => !known.has(key))
    .map(([, each]) => each);
}

/** What there is to ask about the ports that rules name before or after a change. */
export function portQuestions(before: Host, after: Host): PortQuestions {
  const sides: Sides = [sideOf(before), sideOf(after)];
  const near: Asked[] = [];
  const far: Asked[] = [];
  const notAsked: UnaskedPort[] = [];
  for (const netns of distinct(sides.flatMap(({ host }) => Object.keys(host.netns)))) {
    const [was, is] = [portsIn(before, netns), portsIn(after, netns)];
    const ports = [...new Map([...was, ...is])].toSorted(([a], [b]) => (a < b ? -1 : 1));
    const ways: Partial<Record<Family, Ways[]>> = {};
    for (const [name, port] of ports) {
      const isNear = was.has(name) !== is.has(name);
      const own = (ways[port.family] ??= waysTo(sides, netns, port.family));
      (isNear ? near : far).push(...questionsAbout(netns, port, own));
      if (isNear && port.protocol === 'sctp') notAsked.push({ netns, ...port });
    }
  }
  const first = once(near);
  return { near: first, far: once(far, first), notAsked };
}

/** How many there are. */
export function countQuestions({ near, far }: PortQuestions): number {
  return near.length + far.length;
}

/** Where a question can be asked on one side of a change; undefined where whoever asks is not there. */
function requestOn(
  { host, outsides }: Side,
  { publisher, from, protocol, ip, port }: Asked,
): { readonly host: Host; readonly request: ProbeRequest } | undefined {
  const to = { protocol, port };
  if (from.netns === null) {
    const around = outsides.around(publisher, familyOf(ip));
    const source = from.ip === null ? {} : { source: from.ip };
    return (
      around && {
        host: around.host,
        request: { netns: OUTSIDE_NETNS, destination: ip, ...source, to },
      }
    );
  }
  const { netns } = from;
  if (!findNetns(host, netns)) return undefined;
  if (from.ip === null) return { host, request: { netns, destination: ip, to } };
  if (!linkWith(host, { netns, ip: from.ip })) return undefined;
  return { host, request: { netns, source: from.ip, destination: ip, to } };
}

function answerOn(
  side: Side,
  asked: Asked,
  legacyTables: LegacyTables,
): { readonly answer: Answer; readonly unread: readonly UnreadTable[] } {
  const found = requestOn(side, asked);
  if (!found) return { answer: null, unread: [] };
  const trace = probe(makeWorld(found.host, legacyTables), found.request);
  const unread = unreadIn(trace.hops);
  const arrival = arrivalOf(found.host, trace);
  if (!arrival) return { answer: trace.verdict.kind === 'unknown' ? 'unknown' : null, unread };
  const { source, destination, message } = arrival.packet;
  const port = 'destinationPort' in message ? message.destinationPort : asked.port;
  // Whoever has the address is no news.
  if (destination === asked.ip && port === asked.port) return { answer: null, unread };
  const netns = arrival.netns === OUTSIDE_NETNS ? null : arrival.netns;
  return { answer: { netns, ip: destination, port, seenAs: source }, unread };
}

function isSame(a: Answer, b: Answer): boolean {
  if (a === null || b === null || a === 'unknown' || b === 'unknown') return a === b;
  return a.netns === b.netns && a.ip === b.ip && a.port === b.port && a.seenAs === b.seenAs;
}

function askersOf(questions: readonly Asked[]): Asker[] {
  const byKey = new Map(questions.map(({ from }) => [`${from.netns} ${from.ip}`, from]));
  return [...byKey.values()];
}

/**
 * What becomes of who answers at published ports, by at most `most` of the questions: those about ports that come or go first, then
 * others from all over. The exchanged hosts give the exchanged answer. Each is asked in a world in which nothing was sent before.
 */
export function portDelta(
  before: Host,
  after: Host,
  questions: PortQuestions,
  most: number,
  legacyTables: LegacyTables = {},
): PortDelta {
  const near = evenly(questions.near, most);
  const asked = [...near, ...evenly(questions.far, most - near.length)];
  const [was, is] = [sideOf(before), sideOf(after)];
  const passed: UnreadTable[] = [];
  const answerIn = (side: Side, question: Asked): Answer => {
    const { answer, unread } = answerOn(side, question, legacyTables);
    passed.push(...unread);
    return answer;
  };
  const changes = asked.flatMap((question): PortChange[] => {
    const [first, then] = [answerIn(was, question), answerIn(is, question)];
    const { publisher: _publisher, ...own } = question;
    return isSame(first, then) ? [] : [{ ...own, was: first, is: then }];
  });
  return {
    changes,
    askers: askersOf(asked),
    tried: asked.length,
    leftOut: countQuestions(questions) - asked.length,
    notAsked: questions.notAsked,
    unread: joined(passed),
  };
}
