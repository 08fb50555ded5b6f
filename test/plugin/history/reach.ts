/**
 * Who reaches whom: pods each other, their gateway and who is outside, exactly as configurations say; and a call for one
 * attachment changes nothing of that between others.
 */
import assert from 'node:assert/strict';
import { HOST_NETNS, findNetns } from '../../../model/host.ts';
import { type Family, type Ip, familyOf } from '../../../model/ip.ts';
import { formatKey } from '../../../plugin/attachment.ts';
import { OUTSIDE, OUTSIDE_NETNS } from '../../../sim/outside.ts';
import { type ProbeRequest, outcomeOf, probe } from '../../../sim/probe.ts';
import { type Trace, formatTrace } from '../../../sim/trace.ts';
import { type World, makeWorld } from '../../../sim/world.ts';
import {
  type Expected,
  type Party,
  type PoliciesOf,
  type Unknowable,
  gatewayIn,
  hearingLink,
  isMasqueraded,
  policyOf,
  reachesGateway,
  reachesOutside,
  reachesPod,
} from './configured-reach.ts';
import type { Entry } from './ledger.ts';
import { type Node, attachmentOf, entriesOf, linesOf, rawOf } from './node.ts';
import { type Disturbance, disturbance } from './others.ts';
import { surroundingsOf, uplinkIp } from './surroundings.ts';
import { count } from './tally.ts';

/** Of so many attachments every one asks every other: their number counts twice. */
const ASKED = 5;

/** Headers of an echo with those of IP. */
const ECHO_BYTES: Readonly<Record<Family, number>> = { 4: 28, 6: 48 };

/** Why it is not told whether one reaches the other. */
type Reason = Unknowable | Disturbance | 'the same pod' | 'a pod that is not well' | 'the uplink';

/** One question, and what configurations say of it. */
interface Case {
  readonly name: string;
  readonly world: World;
  /** The same with the rules of others, which no configuration tells of; undefined where it is not asked. */
  readonly beside?: World;
  readonly request: ProbeRequest;
  readonly expected: boolean | Reason;
  /** What the pods in question have: whoever has something else may reach others in another way. */
  readonly held: string;
  /** The source that the outside is to see; undefined where it is not asked. */
  readonly seenAs?: Ip;
}

/** How a question was answered. */
interface Answer extends Case {
  readonly isReached: boolean;
  readonly isReachedBeside: boolean;
}

/** How all questions were answered, by their names. */
export type Answers = ReadonlyMap<string, Answer>;

/** A node at one moment, as it is asked. */
interface Moment {
  readonly node: Node;
  readonly worlds: Readonly<Record<Family, World>>;
  readonly whole: World;
  readonly outsides: Readonly<Record<Family, boolean>>;
  readonly policiesOf: PoliciesOf;
  readonly isWell: (entry: Entry) => boolean;
}

/** An attachment of a moment, and one of its addresses. */
interface Place {
  readonly entry: Entry;
  readonly party: Party;
  readonly ip: Ip;
}

function remembered<T, U>(ask: (key: T) => U): (key: T) => U {
  const known = new Map<T, U>();
  return (key) => {
    if (!known.has(key)) known.set(key, ask(key));
    return known.get(key) as U;
  };
}

function momentOf(node: Node): Moment {
  const host = node.machine.backend.host();
  const around = ([4, 6] as const).map((family) =>
    surroundingsOf(host, node.shadow, node.initial, family),
  );
  const [v4, v6] = around as [(typeof around)[0], (typeof around)[0]];
  const isWell = remembered(
    (entry: Entry) => entry.state === 'attached' && linesOf(node, entry).length === 0,
  );
  const policiesOf = remembered((link: string) => {
    const entries = [...node.ledger.values()].filter(({ network }) => {
      const raw = rawOf(node, network);
      return hearingLink(raw) === link && policyOf(raw) !== undefined;
    });
    if (!entries.every(isWell)) return undefined;
    return [...new Set(entries.flatMap(({ network }) => policyOf(rawOf(node, network)) ?? []))];
  });
  return {
    node,
    worlds: { 4: makeWorld(v4.host), 6: makeWorld(v6.host) },
    whole: makeWorld(host),
    outsides: { 4: v4.hasOutside, 6: v6.hasOutside },
    policiesOf,
    isWell,
  };
}

function partyOf({ node }: Moment, entry: Entry): Party {
  const pod: Party[] = [];
  const parties = entriesOf(node, entry.pod).map((each): Party => {
    const ips = attachmentOf(node, each).addresses.map(({ ip }) => ip);
    const party = { raw: rawOf(node, each.network), ips, pod };
    pod.push(party);
    return party;
  });
  return parties[entriesOf(node, entry.pod).indexOf(entry)] as Party;
}

/** An attachment with its first address of each family. */
function placesOf(moment: Moment, entry: Entry): Place[] {
  const party = partyOf(moment, entry);
  return ([4, 6] as const).flatMap((family) => {
    const ip = party.ips.find((each) => familyOf(each) === family);
    return ip === undefined ? [] : [{ entry, party, ip }];
  });
}

function heldBy({ node }: Moment, places: readonly Place[]): string {
  return places
    .flatMap(({ entry }) => entriesOf(node, entry.pod))
    .map(({ key, state }) => `${formatKey(key)} ${state}`)
    .join();
}

/** What configurations say, unless something else is in the way at these places. */
function judged(
  { node, isWell }: Moment,
  places: readonly [Place, ...Place[]],
  ips: readonly Ip[],
  say: () => Expected,
): boolean | Reason {
  const pods = places.flatMap(({ entry }) => entriesOf(node, entry.pod));
  if (!pods.every(isWell)) return 'a pod that is not well';
  const links = pods.map(({ pod, network }) => `${pod} ${String(rawOf(node, network)['bridge'])}`);
  // They hear each other's questions for an address, and both answer.
  if (new Set(links).size < links.length) return 'by which attachment of the pod';
  const netns = places.map(({ entry }) => entry.netns);
  const [{ ip: own }, ...others] = places;
  return disturbance(node, netns, [own, ...others.map(({ ip }) => ip), ...ips]) ?? say();
}

function pairCases(moment: Moment, from: Place, to: Place): Case[] {
  const { raw } = from.party;
  const world = moment.worlds[familyOf(from.ip)];
  const request = { netns: from.entry.netns, source: from.ip, destination: to.ip };
  const held = heldBy(moment, [from, to]);
  const name = `${formatKey(from.entry.key)} to ${formatKey(to.entry.key)}, ${to.ip}`;
  const expected =
    from.entry.pod === to.entry.pod
      ? 'the same pod'
      : judged(moment, [from, to], [], () =>
          reachesPod([from.party, from.ip], [to.party, to.ip], moment.policiesOf),
        );
  const asked = { name, world, request, expected, held };
  const plain = { ...asked, beside: moment.whole };
  const mtuBytes = Number(raw['mtu'] ?? 0);
  // Between networks the bridges' MTUs count too, which are the least of their pods'.
  if (from.entry.network !== to.entry.network || mtuBytes === 0) return [plain];
  const payloadBytes = mtuBytes - ECHO_BYTES[familyOf(from.ip)];
  return [
    plain,
    { ...asked, name: `${name}, in full size`, request: { ...request, payloadBytes } },
    {
      ...asked,
      name: `${name}, too long`,
      request: { ...request, payloadBytes: payloadBytes + 1 },
      expected: expected === true ? false : expected,
    },
  ];
}

function gatewayCases(moment: Moment, place: Place): Case[] {
  const { entry, party, ip } = place;
  const world = moment.worlds[familyOf(ip)];
  const gateway = gatewayIn(party.raw, ip);
  const held = heldBy(moment, [place]);
  const expected = judged(moment, [place], [gateway], () => reachesGateway([party, ip]));
  const name = formatKey(entry.key);
  return [
    {
      name: `${name} to its gateway ${gateway}`,
      world,
      request: { netns: entry.netns, source: ip, destination: gateway },
      expected,
      held,
    },
    {
      name: `the host to ${name}, ${ip}`,
      world,
      request: { netns: HOST_NETNS, destination: ip },
      expected,
      held,
    },
  ];
}

function outsideCases(moment: Moment, place: Place): Case[] {
  const { entry, party, ip } = place;
  const family = familyOf(ip);
  const world = moment.worlds[family];
  const outside = OUTSIDE[family].ip;
  const held = heldBy(moment, [place]);
  const say = (): Expected => reachesOutside([party, ip], outside);
  const expected = judged(moment, [place], [outside, uplinkIp(family)], say);
  const name = formatKey(entry.key);
  if (!moment.outsides[family]) return [];
  return [
    {
      name: `${name} from ${ip} to the outside`,
      world,
      request: { netns: entry.netns, source: ip, destination: outside },
      expected,
      held,
      seenAs: isMasqueraded(party.raw, ip, outside) ? uplinkIp(family) : ip,
    },
    {
      name: `the outside to ${name}, ${ip}`,
      world,
      request: { netns: OUTSIDE_NETNS, source: outside, destination: ip },
      expected,
      held,
    },
  ];
}

/** Everything that is asked of these attachments. */
function casesOf(moment: Moment, entries: readonly Entry[]): Case[] {
  const host = moment.node.machine.backend.host();
  const places = entries
    .filter(({ netns }) => findNetns(host, netns))
    .flatMap((entry) => placesOf(moment, entry));
  return places.flatMap((from) => [
    ...places
      .filter((to) => to.entry !== from.entry && familyOf(to.ip) === familyOf(from.ip))
      .flatMap((to) => pairCases(moment, from, to)),
    ...gatewayCases(moment, from),
    ...outsideCases(moment, from),
  ]);
}

/** The sources that somebody outside saw of what reached him. */
function sourcesSeen({ hops }: Trace): Set<Ip | null> {
  return new Set(
    hops
      .filter(({ netns, stage }) => netns === OUTSIDE_NETNS && stage === 'deliver')
      .flatMap(({ data }) => (data.kind === 'ip' ? [data.source] : [])),
  );
}

function isDelivered(world: World, request: ProbeRequest): boolean {
  return outcomeOf(world, request).verdict.kind === 'delivered';
}

function answered(each: Case): Answer {
  const { world, beside, request } = each;
  return {
    ...each,
    isReached: isDelivered(world, request),
    isReachedBeside: beside !== undefined && isDelivered(beside, request),
  };
}

function assertAsConfigured(node: Node, answer: Answer): void {
  const { name, world, request, expected, isReached, seenAs } = answer;
  if (typeof expected === 'string') {
    count(node.tally, `reach: not told, ${expected}`);
    return;
  }
  count(node.tally, expected ? 'reach: as it should' : 'reach: not, as it should not');
  if (isReached !== expected)
    assert.fail(
      `${name}: ${expected ? 'does not arrive' : 'arrives'}, against what is configured\n` +
        formatTrace(probe(world, request)),
    );
  if (!expected || seenAs === undefined) return;
  count(node.tally, 'reach: source seen outside');
  assert.deepEqual([...sourcesSeen(probe(world, request))], [seenAs], `${name}: seen from outside`);
}

/** Who of some of these reaches whom. Fails unless that is as configured. */
export function whoReachesWhom(node: Node, entries: readonly Entry[]): Answers {
  const moment = momentOf(node);
  const cases = casesOf(moment, entries.slice(0, ASKED));
  const answers = cases.map(answered);
  for (const answer of answers) assertAsConfigured(node, answer);
  return new Map(answers.map((answer) => [answer.name, answer]));
}

/**
 * Fails when somebody reaches another now and did not before, or the other way round, though both pods have what they had. Where
 * rules of others decide, a call may let more through, as configurations ask for (`adoptForward`), but not less.
 */
export function assertSameReach(node: Node, before: Answers, after: Answers): void {
  for (const [name, now] of after) {
    const then = before.get(name);
    if (!then || then.held !== now.held) continue;
    // Networks on one link have their policies in common, so that one with a policy speaks for the others' pods too.
    if (then.expected !== now.expected) {
      count(node.tally, 'reach: changed by what another is configured to be');
      continue;
    }
    count(node.tally, 'reach: the same');
    const isLost = then.isReachedBeside && !now.isReachedBeside;
    if (then.isReached === now.isReached && !isLost) continue;
    assert.fail(
      `${name}: ${now.isReached && !isLost ? 'arrives all of a sudden' : 'does not arrive any more'}\n` +
        formatTrace(probe(isLost && now.beside ? now.beside : now.world, now.request)),
    );
  }
}
