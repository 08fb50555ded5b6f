/**
 * Rules in words: as `nft list ruleset` prints them, and what iptables wrote as iptables does. Where something is not understood
 * its name is in parentheses, and `...` is what it may have loaded.
 */
import type { Netns } from '../../model/host.ts';
import type { Family } from '../../model/ip.ts';
import { type Action, type Hex, type Load, isLoad } from '../../model/nft-expression.ts';
import { registerBytes } from '../../model/nft-key.ts';
import {
  FIELD_BYTES,
  type Field,
  type LookupField,
  type NftFamily,
  type Rule,
  type Statement,
  type Table,
  fieldTypesOf,
  fieldsOf,
  formatStatement,
} from '../../model/nftables.ts';
import { coveredFields, ctField, metaField, modelField, payloadField } from './field.ts';
import { Implied, type Part } from './implied.ts';
import {
  type Loaded,
  UNKNOWN,
  betweenText,
  compareText,
  ofBits,
  ofField,
  ofLength,
} from './loaded.ts';
import { type KeyField, setText } from './set.ts';
import { BRACKETED, familyWord, isOfOne, rejectText, targetType } from './translation.ts';
import {
  ADDRESS,
  ADDRESS_TYPE,
  HOST,
  MARK,
  NETWORK,
  type ValueType,
  rangeText,
  turnedType,
} from './value.ts';
import { xtMatchText, xtTargetText } from './xt.ts';

/** A table, as far as its rules hang on it, and the numbers of the links that they may name. */
export type RuleTable = Pick<Table, 'family' | 'rawSets' | 'sets'> & Pick<Netns, 'ifindexes'>;

/** A part of the text, of which a comparison may be. */
interface RulePart extends Part {
  /** A comparison that may be one half of a range. */
  readonly half?: { readonly words: string; readonly comparison: string; readonly value: string };
}

/** A range that is asked by two comparisons, by these. */
const HALVES: Readonly<Record<string, string>> = { 'gte lte': '', 'lt gt': '!= ' };

const LOOKS: ReadonlySet<string> = new Set(['cmp', 'range', 'lookup', 'bitwise', 'byteorder']);

/** Does a statement look at what is in a register? */
function isLookedAt(statement: Statement | undefined): boolean {
  return statement?.kind === 'opaque' && LOOKS.has(statement.detail?.name ?? '');
}

/** The first bytes of the addresses of IPv4 that are not those of one of IPv6 too, of the networks that there are (IANA, "IPv6 Address Space"). */
function isSurelyIpv4(value: Hex): boolean {
  const first = Number.parseInt(value.slice(0, 2), 16);
  return (first > 0 && first < 0x20) || (first > 0x3f && first < 0xf0);
}

/** One rule on its way into words: what is loaded, and what nft need not say again because other words imply it. */
class Reading {
  readonly #table: RuleTable;
  readonly #parts: RulePart[] = [];
  readonly #known = new Map<number, Loaded>();
  readonly #implied: Implied;
  #isSpent = false;

  constructor(table: RuleTable) {
    this.#table = table;
    this.#implied = new Implied(table.family);
  }

  get text(): string {
    return this.#parts
      .filter(({ text }) => text !== '')
      .map(({ text }) => text)
      .join(' ');
  }

  get #family(): NftFamily {
    return this.#table.family;
  }

  #ask(text: string, half?: RulePart['half']): Part {
    const part: RulePart = { text, ...(half ? { half } : {}) };
    this.#parts.push(part);
    this.#spend();
    return part;
  }

  /** What is asked after it is asked of fewer packets: no condition in front of it is implied by one behind it. */
  #act(text: string): void {
    this.#parts.push({ text });
    this.#implied.keep();
    this.#spend();
  }

  /** Constants are used once; a field may be compared again. */
  #spend(): void {
    for (const [register, { constant }] of this.#known)
      if (constant !== undefined) this.#known.delete(register);
    this.#isSpent = true;
  }

  statement(statement: Statement, next: Statement | undefined): void {
    switch (statement.kind) {
      case 'match':
        this.#imply(statement.field);
        this.#ask(formatStatement(statement));
        break;
      case 'lookup': {
        const [words, fields] = this.#keys(statement.field);
        const set = setText(this.#table, statement.set, fields, HOST);
        this.#ask(`${words} ${statement.negate ? '!= ' : ''}${set}`);
        break;
      }
      case 'vmap': {
        const [words, fields] = this.#keys(statement.field);
        this.#ask(`${words} vmap ${setText(this.#table, statement.map, fields, HOST)}`);
        break;
      }
      case 'dnat': {
        const [words, fields] = this.#keys(statement.field);
        const holds = targetType(statement.family === 4 ? 4 : 16, true);
        const map = setText(this.#table, statement.map, fields, holds);
        this.#act(`dnat ${familyWord(statement.family)}to ${words} map ${map}`);
        break;
      }
      case 'local':
      case 'marked':
        this.#ask(formatStatement(statement));
        break;
      case 'masquerade':
      case 'counter':
      case 'mark':
      case 'verdict':
        this.#act(formatStatement(statement));
        break;
      case 'opaque': {
        const { detail } = statement;
        if (!detail) {
          // It may have loaded any register, or done anything; what is looked at next it has loaded.
          if (isLookedAt(next)) this.#ask(formatStatement(statement));
          else this.#act(formatStatement(statement));
          this.#known.clear();
        } else if (isLoad(detail)) this.#load(detail, next);
        else this.#say(detail);
        break;
      }
    }
  }

  #imply(field: Field): void {
    const [protocol] = field.split(' ');
    if (protocol === 'ip' || protocol === 'ip6') this.#implied.useNetwork(protocol);
  }

  #keys(field: LookupField): readonly [words: string, fields: readonly KeyField[]] {
    for (const each of fieldsOf(field)) this.#imply(each);
    const fields = fieldsOf(field).map((each) => modelField(each, this.#implied.protocols));
    for (const each of fields) this.#implied.use(each);
    return [fields.map(({ words }) => words).join(' . '), fields];
  }

  /** In tables of both families it is said of which one the addresses are, and where a map holds more than an address. */
  #natFamily(family: Family): string {
    return isOfOne(this.#family) ? '' : familyWord(family);
  }

  #at(register: number | null): Loaded {
    return this.#known.get(register ?? -1) ?? UNKNOWN;
  }

  #load(load: Load, next: Statement | undefined): void {
    // What was compared before is not joined with what comes.
    if (this.#isSpent) this.#known.clear();
    this.#isSpent = false;
    this.#known.set(load.to, this.#loaded(load, next));
  }

  #loaded(load: Load, next: Statement | undefined): Loaded {
    switch (load.name) {
      case 'meta':
        return ofField(metaField(load.key, this.#table));
      case 'ct':
        return ofField(ctField(load, this.#addressBytes(next)));
      case 'payload':
        return this.#payload(load);
      case 'fib':
        return ofField({ words: `fib ${load.of} type`, type: ADDRESS_TYPE, bytes: 4 });
      case 'numgen': {
        const offset = load.offset === 0 ? '' : ` offset ${load.offset}`;
        const words = `numgen ${load.mode} mod ${load.modulus}${offset}`;
        return ofField({ words, type: HOST, bytes: 4 });
      }
      case 'immediate': {
        const { value } = load;
        const words = (as: ValueType): string => as.text(value);
        return { words, type: NETWORK, bytes: value.length / 2, constant: value };
      }
      case 'bitwise':
        return ofBits(this.#at(load.from), load);
      case 'byteorder': {
        const { masked: _masked, ...from } = this.#at(load.from);
        return { ...from, type: turnedType(from.type) };
      }
    }
  }

  #payload(load: Load & { readonly name: 'payload' }): Loaded {
    const covers = coveredFields(load, this.#implied.protocols);
    return {
      ...ofField(payloadField(load, this.#implied.protocols)),
      ...(covers ? { covers } : {}),
    };
  }

  /** How long an address is that is loaded here and compared next; undefined where it may be of either family. */
  #addressBytes(next: Statement | undefined): 4 | 16 | undefined {
    const { network: protocol } = this.#implied.protocols;
    if (protocol !== undefined) return protocol === 'ip' ? 4 : 16;
    const detail = next?.kind === 'opaque' ? next.detail : undefined;
    if (detail?.name === 'lookup') {
      const bytes = this.#keyBytes(detail.set);
      return bytes === 4 || bytes === 16 ? bytes : undefined;
    }
    if (detail?.name === 'bitwise') return detail.mask.length > 8 ? 16 : 4;
    if (detail?.name !== 'cmp') return undefined;
    // What is compared may be only the beginning of an address.
    if (detail.value.length > 8) return 16;
    return isSurelyIpv4(detail.value) ? 4 : undefined;
  }

  /** How many bytes a set's keys have; undefined where that is not known. */
  #keyBytes(name: string): number | undefined {
    const raw = this.#table.rawSets?.[name];
    if (raw) return raw.fieldBytes.reduce((sum, bytes) => sum + registerBytes(bytes), 0);
    const set = this.#table.sets[name];
    return (
      set &&
      fieldTypesOf(set.keyType).reduce((sum, type) => sum + registerBytes(FIELD_BYTES[type]), 0)
    );
  }

  /** What is looked up in a set: what lies in the registers from one on. */
  #looked(from: number, set: string): Loaded[] {
    const all = this.#keyBytes(set) ?? 0;
    const found: Loaded[] = [];
    let bytes = 0;
    do {
      const loaded = this.#at(from + bytes / 4);
      found.push(loaded);
      // Where one ends whose length is not known, another begins.
      if (loaded.bytes === 0) return loaded.isUnknown ? found : [...found, UNKNOWN];
      bytes += registerBytes(loaded.bytes);
    } while (bytes < all);
    return found;
  }

  #say(action: Action): void {
    switch (action.name) {
      case 'cmp':
        this.#compare(ofLength(this.#at(action.from), action.value), action);
        break;
      case 'range': {
        const loaded = this.#at(action.from);
        this.#implied.use(loaded);
        this.#ask(betweenText(loaded, action));
        break;
      }
      case 'lookup':
        this.#lookUp(action);
        break;
      case 'meta set':
        this.#act(`meta mark set ${this.#used(action.from).words(MARK)}`);
        break;
      case 'nat':
        this.#translate(action);
        break;
      case 'masq':
        this.#act(`masquerade${this.#toPorts(null)}`);
        break;
      case 'redir':
        this.#act(`redirect${this.#toPorts(action.port)}`);
        break;
      case 'reject':
        this.#reject(action.answer);
        break;
      case 'match':
        this.#act(xtMatchText(action, this.#family));
        break;
      case 'target':
        this.#act(xtTargetText(action));
        break;
      case 'notrack':
        this.#act(action.name);
        break;
    }
  }

  #used(register: number): Loaded {
    const loaded = this.#at(register);
    this.#implied.use(loaded);
    return loaded;
  }

  #compare(loaded: Loaded, action: Action & { readonly name: 'cmp' }): void {
    const { comparison, value } = action;
    const { type, tells, covers } = loaded;
    this.#implied.use(loaded);
    if (covers && comparison === 'eq') {
      let at = 0;
      for (const field of covers) {
        const part = value.slice(at * 2, (at + field.bytes) * 2);
        this.#compare(ofField(field), { ...action, value: part });
        at += field.bytes;
      }
      return;
    }
    const half = { words: loaded.words(type), comparison, value: type.text(value) };
    const previous = this.#parts.at(-1);
    const sign =
      previous?.half?.words === half.words && previous.text !== ''
        ? HALVES[`${previous.half.comparison} ${comparison}`]
        : undefined;
    if (previous?.half && sign !== undefined) {
      this.#parts.pop();
      this.#ask(`${half.words} ${sign}${previous.half.value}-${half.value}`);
      return;
    }
    const part = this.#ask(compareText(loaded, action), half);
    if (tells && comparison === 'eq' && !loaded.isMade)
      this.#implied.learn(tells, loaded, type.text(value), part);
  }

  #lookUp({ set, from, to, negate }: Action & { readonly name: 'lookup' }): void {
    const looked = this.#looked(from, set);
    const words = looked.map((each) => each.words(each.type)).join(' . ');
    const fields = looked.filter((each) => each.bytes > 0);
    for (const each of looked) this.#implied.use(each);
    if (typeof to === 'number') {
      this.#known.clear();
      const header = looked.find((each) => each.header)?.header;
      this.#known.set(to, {
        words: (as) => `${words} map ${setText(this.#table, set, fields, as)}`,
        type: NETWORK,
        bytes: 4,
        map: set,
        ...(header ? { header } : {}),
      });
      return;
    }
    const text = setText(this.#table, set, fields, HOST);
    this.#ask(`${words} ${to === 'verdict' ? 'vmap ' : negate ? '!= ' : ''}${text}`);
  }

  /** What a register holds; with a constant behind it, and before another register, it is the first of all up to that. */
  #upTo(register: number, before: number, as: ValueType): string {
    const first = this.#at(register);
    const [, last] =
      [...this.#known].find(
        ([at, { constant }]) => constant !== undefined && at > register && at < before,
      ) ?? [];
    if (first.constant !== undefined && last?.constant !== undefined)
      return rangeText(as, first.constant, last.constant);
    return first.words(as);
  }

  /** How many bytes the elements of a map hold; 0 where that is not known, or it is none. */
  #heldBytes({ map = '' }: Loaded): number {
    const held = this.#table.rawSets?.[map]?.elements.find(({ data }) => data !== undefined);
    return (held?.data?.length ?? 0) / 2;
  }

  #toPorts(register: number | null): string {
    // Where nobody said in which register the first one is, it is in the first that has a constant.
    const [constant] =
      [...this.#known].find(([, { constant: value }]) => value !== undefined) ?? [];
    const first = register ?? constant;
    return first === undefined ? '' : ` to :${this.#upTo(first, Infinity, NETWORK)}`;
  }

  #translate({ side, family, ip, port }: Action & { readonly name: 'nat' }): void {
    const verb = side === 'source' ? 'snat' : 'dnat';
    const addressBytes = family === 4 ? 4 : 16;
    // Where the port lies behind the address, and was not put there by itself, both come from one map.
    const isJoined = ip !== null && port === ip + addressBytes / 4 && !this.#known.has(port);
    if (ip !== null) this.#used(ip);
    if (ip !== null && (isJoined || port === null)) {
      const map = targetType(addressBytes, isJoined);
      const to = this.#upTo(ip, Infinity, { ...ADDRESS, text: map.text });
      const isLong = isJoined || this.#heldBytes(this.#at(ip)) > addressBytes;
      this.#act(`${verb} ${isLong ? familyWord(family) : this.#natFamily(family)}to ${to}`);
      return;
    }
    const type = family === 4 ? ADDRESS : BRACKETED;
    const address = ip === null ? '' : this.#upTo(ip, port ?? Infinity, type);
    const ports = port === null ? '' : `:${this.#upTo(port, Infinity, NETWORK)}`;
    this.#act(`${verb} ${this.#natFamily(family)}to ${address}${ports}`);
  }

  #reject(answer: string): void {
    const { network: protocol } = this.#implied.protocols;
    const { text, isOwn } = rejectText(answer, this.#family, protocol);
    // In the other tables nft would not say either that the network's protocol is asked for in front of a reset.
    if (isOfOne(this.#family) && answer === 'tcp reset') this.#implied.drop('transport');
    else if (!isOfOne(this.#family) && isOwn) this.#implied.drop('network');
    this.#act(text);
  }
}

/** A rule of the table as nft, or iptables, would print it. */
export function ruleText({ statements, comment }: Rule, table: RuleTable): string {
  const reading = new Reading(table);
  for (const [index, statement] of statements.entries())
    reading.statement(statement, statements[index + 1]);
  const said = comment === '' ? [] : [`comment "${comment}"`];
  return [reading.text, ...said].filter((part) => part !== '').join(' ');
}
