/**
 * What the rules of a base chain decide about a packet (K-8.1; net/netfilter/nf_tables_core.c, nft_do_chain). A statement that is
 * not understood is asked both ways: where what follows is the same, it does not matter.
 */
import type { Netns } from '../model/host.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import {
  type Chain,
  type ChainHook,
  FIELD_TYPES,
  type Field,
  type LookupField,
  type Match,
  type Rule,
  type SetElement,
  type Statement,
  type Table,
  type Verdict,
  fieldsOf,
  keyPartsOf,
} from '../model/nftables.ts';
import { type Prefix, prefixContains } from '../model/prefix.ts';
import { type IpPacket, isLaterFragment } from './frame.ts';
import { transportLoad } from './packet-bytes.ts';
import { Registers, type Step, perform } from './registers.ts';
import { oncePer, oncePerWord } from './remembered.ts';
import { localTypeOf } from './route.ts';
import { type RuleTable, ruleText } from './rule-text/rule.ts';
import { type Seen, type Translation, isOfFamily } from './seen.ts';
import { findRawParts } from './sets.ts';

/** How the evaluation of a base chain ends. */
export interface ChainEnd {
  /** Unknown: it hangs on something that is not understood. */
  readonly end: 'accept' | 'drop' | 'unknown';
  /** The packet's mark after it. */
  readonly mark: number;
  /** Its connection is not to be tracked. */
  readonly untracked: boolean;
  readonly translation: Translation | null;
  /** What the sender of a packet that is dropped is told: `icmp port-unreachable`, `tcp reset`. */
  readonly answer?: string;
  /** Where it was decided: a rule's place in its chain, from 1; null: by the policy. */
  readonly by: { readonly chain: string; readonly rule: number } | null;
  /** Which rule decided, or the policy; for an unknown end what it hangs on, and what would follow either way. */
  readonly text: string;
}

/** A place in a chain, and whereto one returns from it. */
interface Place {
  readonly chain: Chain;
  readonly rule: number;
  readonly statement: number;
  readonly below: Place | null;
}

/** The next statement of the rule. */
function onwards({ chain, rule, statement, below }: Place): Place {
  return { chain, rule, statement: statement + 1, below };
}

/** The next rule. */
function past({ chain, rule, below }: Place): Place {
  return { chain, rule: rule + 1, statement: 0, below };
}

/** Expressions after which every packet goes on as it was; what they keep is for later ones. */
const LETS_ON: ReadonlySet<string> = new Set([
  'counter',
  'dynset',
  'last',
  'log',
  'objref',
  'quota',
  'target CHECKSUM',
  'target TCPMSS',
  'target LOG',
  'target NFLOG',
]);

/** Expressions that let no packet go on. */
const REJECTS: ReadonlySet<string> = new Set(['reject', 'target REJECT', 'target DROP']);

/** Expressions that only ask something: whether the rule goes on hangs on what they ask, and nothing else. */
const ASKS: ReadonlySet<string> = new Set([
  'bitwise',
  'byteorder',
  'cmp',
  'connlimit',
  'ct',
  'exthdr',
  'fib',
  'hash',
  'immediate',
  'limit',
  'lookup',
  'meta',
  'numgen',
  'osf',
  'payload',
  'range',
  'rt',
  'socket',
  'xfrm',
]);

/** Expressions that only load what the packet has; what is not known of it is asked about where it is compared. */
const LOADS: ReadonlySet<string> = new Set([
  'bitwise',
  'byteorder',
  'ct',
  'exthdr',
  'fib',
  'hash',
  'immediate',
  'meta',
  'numgen',
  'osf',
  'payload',
  'rt',
  'socket',
  'xfrm',
]);

/** Are the expressions of a rule known by more than their names? */
function hasDetails({ statements }: Rule): boolean {
  return statements.some((each) => each.kind === 'opaque' && each.detail !== undefined);
}

function doesAsk(expression: string): boolean {
  return ASKS.has(expression) || expression.startsWith('match ');
}

/** So many statements that are not understood are asked both ways in one chain. */
const FORKS_MAX = 10;

/** The port that a packet is for; of a later fragment what lies there. */
function portIn(seen: Seen, packet: IpPacket): string | undefined {
  const { message } = packet;
  if (!('destinationPort' in message)) return undefined;
  if (!isLaterFragment(packet)) return `${message.destinationPort}`;
  const bytes = transportLoad(seen, 2, 2);
  return bytes && `${((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0)}`;
}

/** The value of a field in the text of keys; undefined where the packet has none, so that the rule ends. */
function valueOf(seen: Seen, field: Field): string | undefined {
  const { packet, frame } = seen;
  const ip = packet.kind === 'ip' ? packet : undefined;
  const arp = packet.kind === 'arp' ? packet : undefined;
  const is4 = ip !== undefined && familyOf(ip.destination) === 4;
  switch (field) {
    case 'ip saddr':
      return is4 ? ip.source : undefined;
    case 'ip daddr':
      return is4 ? ip.destination : undefined;
    case 'ip6 saddr':
      return ip && !is4 ? ip.source : undefined;
    case 'ip6 daddr':
      return ip && !is4 ? ip.destination : undefined;
    // The name of no link is another than any (nft_meta.c, nft_meta_store_ifname).
    case 'iifname':
      return seen.iif ?? '';
    case 'oifname':
      return seen.oif ?? '';
    case 'ether saddr':
      return frame?.source;
    case 'arp saddr ether':
      return arp?.senderMac;
    case 'arp saddr ip':
      return arp?.senderIp;
    case 'meta l4proto':
      return ip?.message.kind === 'tcp' || ip?.message.kind === 'reset'
        ? 'tcp'
        : ip && 'sourcePort' in ip.message
          ? 'udp'
          : undefined;
    case 'th dport':
      return ip && portIn(seen, ip);
  }
}

const holdsFor = oncePerWord(({ value }: Match, have: string): boolean =>
  value.includes('/') ? prefixContains(value as Prefix, have as Ip) : have === value,
);

function matches(seen: Seen, match: Match): boolean {
  const have = valueOf(seen, match.field);
  return have !== undefined && holdsFor(match, have) !== match.negate;
}

interface Lookup {
  readonly field: LookupField;
}

const fieldsIn = oncePer(({ field }: Lookup) => fieldsOf(field));

/** The element for what the packet has in the fields of a lookup; null where there is none, undefined where it lacks one of the fields. */
function findElement(
  seen: Seen,
  table: Table,
  name: string,
  lookup: Lookup,
): Pick<SetElement, 'verdict' | 'target'> | null | undefined {
  const set = table.sets[name];
  const fields = fieldsIn(lookup);
  const values = fields.map((each) => valueOf(seen, each));
  if (values.includes(undefined)) return undefined;
  const key = values.join(' . ');
  if (!set) {
    const types = fields.map((each) => FIELD_TYPES[each]);
    const found = findRawParts(table.rawSets?.[name], types, values as string[]);
    return found ? { verdict: found.verdict ?? null } : null;
  }
  return Object.hasOwn(set.elements, key) ? (set.elements[key] ?? null) : null;
}

/** A table with the numbers of the links that its rules may name. */
const withNumbers = oncePerWord(({ ifindexes }: Netns, table: Table): RuleTable =>
  ifindexes ? { ...table, ifindexes } : table,
);

const wordsOf = oncePerWord((table: RuleTable, rule: Rule): string => ruleText(rule, table));

/** More jumps than any packet takes: the kernel has no chain that leads to itself (nf_tables_api.c, nft_chain_validate), but a saved ruleset may. */
const JUMPS_MAX = 1_000_000;

/** Evaluates one base chain for one packet. */
class Evaluation {
  readonly #seen: Seen;
  readonly #table: Table;
  readonly #hook: ChainHook;
  readonly #registers = new Registers();
  #forks = 0;
  #jumps = 0;
  #untracked = false;

  constructor(seen: Seen, table: Table, hook: ChainHook) {
    this.#seen = seen;
    this.#table = table;
    this.#hook = hook;
  }

  /** From a place on, with the mark that the packet has there. */
  walk(start: Place | null, startMark: number): ChainEnd {
    let place = start;
    let mark = startMark;
    while (place) {
      const { chain, rule: at, statement: part, below } = place;
      const rule = chain.rules[at];
      if (!rule) {
        place = below;
        continue;
      }
      if (part === 0) this.#registers.forget();
      const statement = rule.statements[part];
      if (!statement) {
        place = past(place);
        continue;
      }
      switch (statement.kind) {
        case 'match':
          place = matches(this.#seen, statement) ? onwards(place) : past(place);
          break;
        case 'lookup': {
          const found = findElement(this.#seen, this.#table, statement.set, statement);
          const goesOn = found !== undefined && (found !== null) !== statement.negate;
          place = goesOn ? onwards(place) : past(place);
          break;
        }
        case 'vmap': {
          const verdict = findElement(this.#seen, this.#table, statement.map, statement)?.verdict;
          if (!verdict) place = past(place);
          else {
            const next = this.#follow(verdict, place, mark);
            if (next && 'end' in next) return next;
            place = next;
          }
          break;
        }
        case 'verdict': {
          const next = this.#follow(statement, place, mark);
          if (next && 'end' in next) return next;
          place = next;
          break;
        }
        case 'masquerade':
          return this.#end(place, mark, 'accept', { kind: 'masquerade' });
        case 'dnat': {
          const target = findElement(this.#seen, this.#table, statement.map, statement)?.target;
          if (target === undefined) place = past(place);
          // Of the other family it translates nothing (net/netfilter/nft_nat.c, nft_nat_inet_eval).
          else if (!isOfFamily(this.#seen, statement.family)) place = onwards(place);
          else {
            const [ip = '', port = ''] = keyPartsOf(target);
            const translation = { kind: 'dnat', ip: ip as Ip, port: Number(port) } as const;
            return this.#end(place, mark, 'accept', translation);
          }
          break;
        }
        case 'local': {
          const { packet, netns } = this.#seen;
          const isLocal =
            packet.kind === 'ip' && localTypeOf(netns, packet.destination) === 'local';
          place = isLocal ? onwards(place) : past(place);
          break;
        }
        case 'mark':
          mark = (statement.on ? mark | statement.bits : mark & ~statement.bits) >>> 0;
          place = onwards(place);
          break;
        case 'marked':
          place = (mark & statement.bits) >>> 0 === statement.bits ? onwards(place) : past(place);
          break;
        case 'counter':
          place = onwards(place);
          break;
        case 'opaque': {
          const { expression } = statement;
          if (statement.detail) {
            const seen = mark === this.#seen.mark ? this.#seen : { ...this.#seen, mark };
            const step = perform(seen, this.#table, this.#registers, statement.detail);
            const next = this.#take(step, place, mark);
            if (next === 'unknown') return this.#fork(expression, place, mark);
            if (next && 'end' in next) return next;
            if (step.kind === 'mark') ({ mark } = step);
            place = next;
          } else if (LETS_ON.has(expression)) place = onwards(place);
          else if (REJECTS.has(expression)) {
            const end = this.#end(place, mark, 'drop');
            return expression === 'target DROP' ? end : { ...end, answer: '' };
          } else if (LOADS.has(expression) && hasDetails(rule)) {
            this.#registers.forget();
            place = onwards(place);
          } else return this.#fork(expression, place, mark);
          break;
        }
        // A saved ruleset may say anything.
        default:
          throw new Error(`a rule cannot do ${JSON.stringify((statement as Statement).kind)}`);
      }
    }
    const text = `policy of ${this.#hook.hook}`;
    return {
      end: this.#hook.policy,
      mark,
      untracked: this.#untracked,
      translation: null,
      by: null,
      text,
    };
  }

  /** How it ends by the rule at a place. */
  #end(
    { chain, rule: at }: Place,
    mark: number,
    end: 'accept' | 'drop',
    translation: Translation | null = null,
  ): ChainEnd {
    const { family, name } = this.#table;
    const rule = chain.rules[at];
    const words = rule ? wordsOf(withNumbers(this.#seen.netns, this.#table), rule) : '';
    return {
      end,
      mark,
      untracked: this.#untracked,
      translation,
      by: { chain: chain.name, rule: at + 1 },
      text: `rule ${at + 1} of chain ${family} ${name} ${chain.name}, ${words}`,
    };
  }

  /** Where what an expression came to leads, or how it ends. */
  #take(step: Step, place: Place, mark: number): Place | null | ChainEnd | 'unknown' {
    switch (step.kind) {
      case 'on':
      case 'mark':
        return onwards(place);
      case 'untracked':
        this.#untracked = true;
        return onwards(place);
      case 'past':
        return past(place);
      case 'unknown':
        return 'unknown';
      case 'reject':
        return { ...this.#end(place, mark, 'drop'), answer: step.answer };
      case 'translation':
        return this.#end(place, mark, 'accept', step.translation);
      case 'verdict':
        return this.#follow(step.verdict, place, mark);
    }
  }

  /** Where a verdict leads, or how it ends. */
  #follow(verdict: Verdict, from: Place, mark: number): Place | null | ChainEnd {
    const after = past(from);
    if ('chain' in verdict) {
      const chain = this.#table.chains[verdict.chain];
      this.#jumps += 1;
      if (this.#jumps > JUMPS_MAX) throw new Error(`chain ${verdict.chain} leads to itself`);
      const below = verdict.verdict === 'jump' ? after : from.below;
      return chain ? { chain, rule: 0, statement: 0, below } : after;
    }
    if (verdict.verdict === 'continue') return after;
    if (verdict.verdict === 'return') return from.below;
    return this.#end(from, mark, verdict.verdict);
  }

  /** What is not understood lets the packet go on in its rule, or not: the end where both lead to the same. */
  #fork(expression: string, place: Place, mark: number): ChainEnd {
    const at = this.#end(place, mark, 'accept');
    const unknown = (text: string): ChainEnd => ({
      ...at,
      end: 'unknown',
      text: `${at.text}: ${text}`,
    });
    this.#forks += 1;
    if (!doesAsk(expression)) return unknown(`what ${expression} does is not known`);
    if (this.#forks > FORKS_MAX)
      return unknown(`${expression} is not understood, nor much before it`);
    // Most such statements stand together, and ask one thing.
    const on = onwards(place);
    const rule = on.chain.rules[on.rule];
    const fits = this.walk(rule && hasDetails(rule) ? on : behindQuestion(on), mark);
    const fails = this.walk(past(place), mark);
    const isSame =
      fits.end === fails.end &&
      fits.end !== 'unknown' &&
      fits.mark === fails.mark &&
      JSON.stringify(fits.translation) === JSON.stringify(fails.translation);
    if (isSame) return fails;
    return unknown(
      `${expression} is not understood; where it fits ${sayEnd(fits)}, else ${sayEnd(fails)}`,
    );
  }
}

/** The first statement of a rule from `place` on that is not part of the same question. */
function behindQuestion(place: Place): Place {
  const statements = place.chain.rules[place.rule]?.statements ?? [];
  let statement = place.statement;
  for (let next = statements[statement]; next?.kind === 'opaque'; next = statements[statement]) {
    if (!doesAsk(next.expression)) break;
    statement += 1;
  }
  return { ...place, statement };
}

function sayEnd({ end, translation, text }: ChainEnd): string {
  if (end === 'unknown') return `it is not known (${text})`;
  const what = end === 'drop' ? 'it is dropped' : translation ? 'it is translated' : 'it goes on';
  return `${what} (${text})`;
}

/** What a base chain decides about a packet. */
export function evaluateChain(seen: Seen, table: Table, chain: Chain): ChainEnd {
  if (chain.hook === null) throw new Error(`chain ${chain.name} is hooked in nowhere`);
  const start = { chain, rule: 0, statement: 0, below: null };
  return new Evaluation(seen, table, chain.hook).walk(start, seen.mark);
}
