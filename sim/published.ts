/**
 * The ports that rules send elsewhere, read off the rules: what becomes of a packet for one only a probe tells. A rule is asked for
 * nothing but what a packet is for; what else it asks of it is taken to fit, and what is not understood as well.
 */
import type { Netns } from '../model/host.ts';
import { type Family, type Ip, ipFromBytes } from '../model/ip.ts';
import {
  type Expression,
  type Hex,
  type Load,
  type XtMatch,
  fromHex,
  isLoad,
} from '../model/nft-expression.ts';
import { registerBytes } from '../model/nft-key.ts';
import {
  type Chain,
  FIELD_BYTES,
  FIELD_TYPES,
  type Field,
  type LookupField,
  type NftFamily,
  type Statement,
  TRANSPORTS,
  type Table,
  type Transport,
  type Verdict,
  fieldsOf,
} from '../model/nftables.ts';
import { type ElementRange, rangesOf } from './rule-text/set.ts';
import { findRawSet } from './sets.ts';

/** A port that rules name on the way to a translation of where packets go. */
export interface PublishedPort {
  readonly family: Family;
  readonly protocol: Transport;
  /** Null: at any address. */
  readonly ip: Ip | null;
  readonly port: number;
}

/** What packets are for, as far as rules have asked; null: anything. */
interface Wanted {
  readonly protocol: Transport | null;
  readonly ip: Ip | null;
  readonly port: number | null;
}

const ANYTHING: Wanted = { protocol: null, ip: null, port: null };

/** Of a longer range only the first and the last port are taken. */
const LONGEST_RANGE = 16;

/** So many ways to fit a rule are looked at: of a condition that would make more of them nothing is taken in. */
const MOST_WAYS = 100_000;

function transportOf(protocol: number): Transport | undefined {
  const names = Object.keys(TRANSPORTS) as Transport[];
  return names.find((name) => TRANSPORTS[name] === protocol);
}

function canBeBoth<T>(a: T | null, b: T | null): boolean {
  return a === null || b === null || a === b;
}

/** What fits both, if anything does. */
function both(a: Wanted, b: Wanted): Wanted[] {
  if (!canBeBoth(a.protocol, b.protocol) || !canBeBoth(a.ip, b.ip) || !canBeBoth(a.port, b.port))
    return [];
  return [{ protocol: a.protocol ?? b.protocol, ip: a.ip ?? b.ip, port: a.port ?? b.port }];
}

function narrowed(ways: readonly Wanted[], to: readonly Wanted[]): readonly Wanted[] {
  if (ways.length * to.length > MOST_WAYS) return ways;
  return ways.flatMap((way) => to.flatMap((each) => both(way, each)));
}

/** Part of what stands in registers, or in a key. */
interface Part {
  readonly what: 'protocol' | 'ip' | 'port' | 'other';
  readonly bytes: number;
}

function wordOf(hex: Hex): number {
  return Number.parseInt(hex.slice(0, 4), 16);
}

/** The ports from one to another. */
function portsBetween(first: number, last: number): Wanted[] {
  const count = last - first + 1;
  const ports =
    count > LONGEST_RANGE ? [first, last] : Array.from({ length: count }, (_, i) => first + i);
  return ports.map((port) => ({ ...ANYTHING, port }));
}

/** What a part is, all from one value to another; nothing where that is no packet that could be translated. */
function waysOf({ what, bytes }: Part, first: Hex, last: Hex): readonly Wanted[] {
  switch (what) {
    case 'protocol': {
      if (first !== last) return [ANYTHING];
      const protocol = transportOf(Number.parseInt(first.slice(0, 2), 16));
      return protocol === undefined ? [] : [{ ...ANYTHING, protocol }];
    }
    case 'ip':
      if (first !== last) return [ANYTHING];
      return [{ ...ANYTHING, ip: ipFromBytes(fromHex(first.slice(0, bytes * 2))) }];
    case 'port':
      return portsBetween(wordOf(first), wordOf(last));
    case 'other':
      return [ANYTHING];
  }
}

/** What the keys from one to another are, by their parts. */
function waysOfKeys(parts: readonly Part[], { first, last }: ElementRange): readonly Wanted[] {
  let ways: readonly Wanted[] = [ANYTHING];
  let at = 0;
  for (const part of parts) {
    const own = (key: Hex): Hex => key.slice(at * 2, (at + part.bytes) * 2);
    if (own(first).length === part.bytes * 2)
      ways = narrowed(ways, waysOf(part, own(first), own(last)));
    at += registerBytes(part.bytes);
  }
  return ways;
}

const WHAT: Readonly<Partial<Record<Field, Part['what']>>> = {
  'meta l4proto': 'protocol',
  'th dport': 'port',
  'ip daddr': 'ip',
  'ip6 daddr': 'ip',
};

function partsOf(field: LookupField): Part[] {
  return fieldsOf(field).map((each) => ({
    what: WHAT[each] ?? 'other',
    bytes: FIELD_BYTES[FIELD_TYPES[each]],
  }));
}

/** What an element of a set asks of a packet, and where it leads. */
interface Way {
  readonly ways: readonly Wanted[];
  readonly verdict: Verdict | undefined;
}

/** What the elements of a set ask; undefined where nobody has read it. */
function elementsOf(table: Table, name: string, parts: readonly Part[]): Way[] | undefined {
  const set = findRawSet(table, name);
  if (!set) return undefined;
  const known = rangesOf(set).map((range) => ({
    ways: waysOfKeys(parts, range),
    verdict: range.element.verdict,
  }));
  const rest = set.elements.find(({ key }) => key === '');
  return rest ? [...known, { ways: [ANYTHING], verdict: rest.verdict }] : known;
}

const REGISTER_BYTES = 4;

/** What nothing is known of. */
const OTHER: Part = { what: 'other', bytes: REGISTER_BYTES };

/** The end of an IPv4 and of an IPv6 header that holds whom a packet is for, and where the protocol above it stands. */
const NETWORK_PARTS: Readonly<Record<string, Part>> = {
  '16 4': { what: 'ip', bytes: 4 },
  '24 16': { what: 'ip', bytes: 16 },
  '9 1': { what: 'protocol', bytes: 1 },
  '6 1': { what: 'protocol', bytes: 1 },
};

type Comparing = Expression & { readonly name: 'cmp' };
type Ranging = Expression & { readonly name: 'range' };

/** What registers hold of whom a packet is for. */
class Held {
  readonly #parts = new Map<number, Part>();
  /** Ports not below this, as a register was asked first. */
  readonly #least = new Map<number, Hex>();

  load(to: number, part: Part): void {
    const count = Math.max(1, registerBytes(part.bytes) / REGISTER_BYTES);
    for (let i = 0; i < count; i += 1) {
      this.#parts.delete(to + i);
      this.#least.delete(to + i);
    }
    this.#parts.set(to, part);
  }

  at(register: number): Part {
    return this.#parts.get(register) ?? OTHER;
  }

  /** What lies in the registers from one on, so many bytes. */
  from(register: number, bytes: number): Part[] {
    const found: Part[] = [];
    for (let at = 0; at < bytes; at += registerBytes(found.at(-1)?.bytes ?? 1))
      found.push(this.at(register + at / REGISTER_BYTES));
    return found;
  }

  /** What a comparison leaves of packets; nft asks for a range by two. */
  compare({ from, comparison, value }: Comparing): readonly Wanted[] {
    const part = this.at(from);
    if (value.length !== part.bytes * 2) return [ANYTHING];
    if (comparison === 'eq') return waysOf(part, value, value);
    if (comparison === 'gte') this.#least.set(from, value);
    const least = this.#least.get(from);
    return comparison === 'lte' && least !== undefined ? waysOf(part, least, value) : [ANYTHING];
  }

  /** What a range leaves of them. */
  range({ from, low, high, negate }: Ranging): readonly Wanted[] {
    const part = this.at(from);
    return negate || low.length !== part.bytes * 2 ? [ANYTHING] : waysOf(part, low, high);
  }
}

/** Where the port that a packet is for stands behind the headers of IP. */
const DPORT_AT = 2;

/** How many bytes of links' names are loaded. */
const NAME_BYTES = 16;

function loadedPart(load: Load): Part {
  if (load.name === 'meta') {
    if (load.key === 'l4proto') return { what: 'protocol', bytes: 1 };
    return load.key === 'iifname' || load.key === 'oifname'
      ? { what: 'other', bytes: NAME_BYTES }
      : OTHER;
  }
  if (load.name !== 'payload') return OTHER;
  const { header, offset, bytes } = load;
  if (header === 'transport')
    return { what: offset === DPORT_AT && bytes === 2 ? 'port' : 'other', bytes };
  return NETWORK_PARTS[`${offset} ${bytes}`] ?? { what: 'other', bytes };
}

/** XT_TCP_INV_DSTPT, which XT_UDP_INV_DSTPT is too. */
const INVERTS_PORT = 2;

/** What a match of iptables asks of whom a packet is for. */
function waysOfMatch(match: XtMatch): readonly Wanted[] {
  if (match.match === 'tcp' || match.match === 'udp') {
    const [first, last] = match.destination;
    const isAny = (match.inverts & INVERTS_PORT) !== 0 || (first === 0 && last === 0xffff);
    const ports = isAny ? [ANYTHING] : portsBetween(first, last);
    return narrowed(ports, [{ ...ANYTHING, protocol: match.match }]);
  }
  if (match.match !== 'multiport' || match.invert || match.of === 'source') return [ANYTHING];
  return match.ports.flatMap(([first, last]) => portsBetween(first, last));
}

/** Names of expressions that translate where packets go, of which nothing else is known. */
const TRANSLATES: ReadonlySet<string> = new Set(['nat', 'redir', 'target DNAT', 'target REDIRECT']);

/** The families whose packets a statement sends elsewhere; none where it does not. */
function translatedBy(statement: Statement, family: NftFamily): readonly Family[] {
  const own: readonly Family[] = family === 'ip' ? [4] : family === 'ip6' ? [6] : [4, 6];
  if (statement.kind === 'dnat') return [statement.family];
  if (statement.kind !== 'opaque') return [];
  const { detail, expression } = statement;
  if (!detail) return TRANSLATES.has(expression) ? own : [];
  if (detail.name === 'nat') return detail.side === 'destination' ? [detail.family] : [];
  if (detail.name === 'redir') return own;
  const isTarget =
    detail.name === 'target' && (detail.target === 'DNAT' || detail.target === 'REDIRECT');
  return isTarget ? own : [];
}

function chainsOf(verdict: Verdict | undefined): string[] {
  return verdict && 'chain' in verdict ? [verdict.chain] : [];
}

/** The chains that a statement may lead to. */
function nextChains(statement: Statement, table: Table): string[] {
  if (statement.kind === 'verdict') return chainsOf(statement);
  const map =
    statement.kind === 'vmap'
      ? statement.map
      : statement.kind === 'opaque' && statement.detail?.name === 'lookup'
        ? statement.detail.set
        : undefined;
  const set = map === undefined ? undefined : findRawSet(table, map);
  return set?.elements.flatMap(({ verdict }) => chainsOf(verdict)) ?? [];
}

/** The chains of a table from which packets come to a translation of where they go. */
function leadingChains(table: Table): ReadonlySet<string> {
  const chains = Object.values(table.chains);
  const translating = chains.filter(({ rules }) =>
    rules.some(({ statements }) =>
      statements.some((each) => translatedBy(each, table.family).length > 0),
    ),
  );
  const found = new Set(translating.map(({ name }) => name));
  if (found.size === 0) return found;
  const before = new Map<string, string[]>();
  for (const { name, rules } of chains)
    for (const next of rules.flatMap(({ statements }) =>
      statements.flatMap((each) => nextChains(each, table)),
    )) {
      const known = before.get(next);
      if (known) known.push(name);
      else before.set(next, [name]);
    }
  // A set that grows while it is gone through is gone through to its end.
  for (const name of found) for (const each of before.get(name) ?? []) found.add(each);
  return found;
}

/** A walk through the rules of a table, which notes what leads to a translation. */
class Walk {
  readonly #table: Table;
  readonly #leading: ReadonlySet<string>;
  readonly #seen = new Set<string>();
  readonly found: PublishedPort[] = [];

  constructor(table: Table) {
    this.#table = table;
    this.#leading = leadingChains(table);
  }

  chain(chain: Chain | undefined, ways: readonly Wanted[]): void {
    if (!chain || !this.#leading.has(chain.name) || ways.length === 0) return;
    const place = `${chain.name} ${JSON.stringify(ways)}`;
    if (this.#seen.has(place)) return;
    this.#seen.add(place);
    for (const { statements } of chain.rules) this.#rule(statements, ways);
  }

  #rule(statements: readonly Statement[], start: readonly Wanted[]): void {
    const held = new Held();
    let ways = start;
    for (const statement of statements) {
      ways = this.#statement(statement, held, ways);
      if (ways.length === 0) return;
      for (const family of translatedBy(statement, this.#table.family)) this.#note(family, ways);
    }
  }

  /** What a statement leaves of the packets that come to it. */
  #statement(statement: Statement, held: Held, ways: readonly Wanted[]): readonly Wanted[] {
    switch (statement.kind) {
      case 'match': {
        const { field, negate, value } = statement;
        const isOne = WHAT[field] === 'ip' && !negate && !value.includes('/');
        return isOne ? narrowed(ways, [{ ...ANYTHING, ip: value as Ip }]) : ways;
      }
      case 'lookup':
        return statement.negate
          ? ways
          : this.#looked(statement.set, partsOf(statement.field), ways, false);
      case 'vmap':
        return this.#looked(statement.map, partsOf(statement.field), ways, true);
      case 'dnat':
        return this.#looked(statement.map, partsOf(statement.field), ways, false);
      case 'verdict':
        for (const name of chainsOf(statement)) this.chain(this.#table.chains[name], ways);
        return ways;
      case 'opaque':
        return statement.detail ? this.#expression(statement.detail, held, ways) : ways;
      case 'counter':
      case 'local':
      case 'mark':
      case 'marked':
      case 'masquerade':
        return ways;
    }
  }

  #expression(expression: Expression, held: Held, ways: readonly Wanted[]): readonly Wanted[] {
    if (isLoad(expression)) {
      held.load(expression.to, loadedPart(expression));
      return ways;
    }
    if (expression.name === 'cmp') return narrowed(ways, held.compare(expression));
    if (expression.name === 'range') return narrowed(ways, held.range(expression));
    if (expression.name === 'match') return narrowed(ways, waysOfMatch(expression));
    if (expression.name !== 'lookup' || expression.negate) return ways;
    const { set, from, to } = expression;
    const parts = held.from(from, this.#keyBytes(set));
    if (typeof to === 'number') held.load(to, OTHER);
    return this.#looked(set, parts, ways, to === 'verdict');
  }

  #keyBytes(name: string): number {
    const keys = findRawSet(this.#table, name)?.elements.map(({ key }) => key.length / 2) ?? [];
    return keys.reduce((most, bytes) => Math.max(most, bytes), 0);
  }

  /** What a set leaves of the packets; where it says where they go on, they are followed there. */
  #looked(
    name: string,
    parts: readonly Part[],
    ways: readonly Wanted[],
    leads: boolean,
  ): readonly Wanted[] {
    const elements = elementsOf(this.#table, name, parts);
    if (!elements) return ways;
    if (!leads)
      return narrowed(
        ways,
        elements.flatMap((each) => each.ways),
      );
    for (const { ways: own, verdict } of elements)
      for (const next of chainsOf(verdict))
        this.chain(this.#table.chains[next], narrowed(ways, own));
    return ways;
  }

  #note(family: Family, ways: readonly Wanted[]): void {
    for (const { protocol, ip, port } of ways) {
      if (port === null || port === 0) continue;
      if (ip !== null && ip.includes(':') !== (family === 6)) continue;
      // A port without a protocol is one of both that are asked about.
      const protocols: readonly Transport[] = protocol === null ? ['tcp', 'udp'] : [protocol];
      for (const each of protocols) this.found.push({ family, protocol: each, ip, port });
    }
  }
}

/** Names a port, so that those of one netns can be compared: `tcp 8080 at 192.0.2.1`. */
export function formatPublished({ family, protocol, ip, port }: PublishedPort): string {
  return `${protocol} ${port} at ${ip ?? (family === 4 ? 'any address' : 'any address of IPv6')}`;
}

/**
 * The ports that the rules of a netns name where they translate whom packets are for, each once, sorted by their names. A rule that
 * translates every port names none; of a range of more than 16 the first and the last are named.
 */
export function publishedPorts({ nftables }: Netns): PublishedPort[] {
  const found = Object.values(nftables).flatMap((table) => {
    const walk = new Walk(table);
    for (const chain of Object.values(table.chains)) {
      const { type, hook } = chain.hook ?? {};
      if (type === 'nat' && (hook === 'prerouting' || hook === 'output'))
        walk.chain(chain, [ANYTHING]);
    }
    return walk.found;
  });
  const byName = new Map(found.map((each) => [formatPublished(each), each]));
  return [...byName].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, each]) => each);
}
