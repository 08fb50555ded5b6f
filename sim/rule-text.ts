/** Rules in words: as nft prints them, and what iptables wrote as iptables does. */
import { ipFromBytes } from '../model/ip.ts';
import {
  type Action,
  type Hex,
  type Load,
  type XtMatch,
  type XtTarget,
  fromHex,
  isLoad,
} from '../model/nft-expression.ts';
import { type Rule, formatStatement } from '../model/nftables.ts';

/** What stands in a register: in words, and how its values read. */
interface Loaded {
  readonly words: string;
  readonly reads: (value: Hex) => string;
}

function network(value: Hex): string {
  return value === '' ? '0' : BigInt(`0x${value}`).toString();
}

function host(value: Hex): bigint {
  const turned = (value.match(/../g) ?? []).toReversed().join('');
  return turned === '' ? 0n : BigInt(`0x${turned}`);
}

function bits(value: Hex): string {
  return `0x${host(value).toString(16)}`;
}

function address(value: Hex): string {
  const bytes = fromHex(value);
  return bytes.length === 4 || bytes.length === 16 ? ipFromBytes(bytes) : `0x${value}`;
}

/** The beginning of an address is a prefix in whole bytes. */
function addressStart(full: number): (value: Hex) => string {
  return (value) => {
    const length = value.length / 2;
    const text = address(value.padEnd(full * 2, '0'));
    return length === full ? text : `${text}/${length * 8}`;
  };
}

function ifname(value: Hex): string {
  const bytes = fromHex(value);
  const nul = bytes.indexOf(0);
  const name = new TextDecoder().decode(nul < 0 ? bytes : bytes.subarray(0, nul));
  return `"${name}${nul < 0 && bytes.length < 16 ? '*' : ''}"`;
}

function named(names: Readonly<Record<number, string>>): (value: Hex) => string {
  return (value) => names[Number(host(value))] ?? host(value).toString();
}

function flagged(names: readonly (readonly [bit: number, name: string])[]): (value: Hex) => string {
  return (value) => {
    const number = Number(host(value));
    const set = names.filter(([bit]) => (number & bit) !== 0).map(([, name]) => name);
    return set.length > 0 ? set.join(',') : bits(value);
  };
}

const PROTOCOLS = { 1: 'icmp', 6: 'tcp', 17: 'udp', 58: 'ipv6-icmp', 132: 'sctp' };
const STATES = [
  [1, 'invalid'],
  [2, 'established'],
  [4, 'related'],
  [8, 'new'],
  [64, 'untracked'],
] as const;
const STATUSES = [
  [1, 'expected'],
  [2, 'seen-reply'],
  [4, 'assured'],
  [8, 'confirmed'],
  [16, 'snat'],
  [32, 'dnat'],
] as const;
const TYPES = { 1: 'unicast', 2: 'local', 3: 'broadcast', 4: 'anycast', 5: 'multicast' };

const META: Readonly<Record<string, (value: Hex) => string>> = {
  mark: bits,
  iifname: ifname,
  oifname: ifname,
  nfproto: named({ 2: 'ipv4', 10: 'ipv6' }),
  l4proto: named(PROTOCOLS),
  pkttype: named({ 0: 'host', 1: 'broadcast', 2: 'multicast' }),
  protocol: (value) => ({ '0800': 'ip', '86dd': 'ip6', '0806': 'arp' })[value] ?? network(value),
};

const CT: Readonly<Record<string, (value: Hex) => string>> = {
  state: flagged(STATES),
  status: flagged(STATUSES),
  direction: named({ 0: 'original', 1: 'reply' }),
  l3protocol: named({ 2: 'ipv4', 10: 'ipv6' }),
  protocol: named(PROTOCOLS),
  saddr: address,
  daddr: address,
};

/** Fields by header, offset and length; of addresses also their beginning. */
const FIELDS: readonly (readonly [string, number, number, string, (value: Hex) => string])[] = [
  ['network', 12, 4, 'ip saddr', addressStart(4)],
  ['network', 16, 4, 'ip daddr', addressStart(4)],
  ['network', 8, 16, 'ip6 saddr', addressStart(16)],
  ['network', 24, 16, 'ip6 daddr', addressStart(16)],
  ['network', 9, 1, 'ip protocol', named(PROTOCOLS)],
  ['network', 8, 1, 'ip ttl', network],
  ['network', 7, 1, 'ip6 hoplimit', network],
  ['transport', 0, 2, 'th sport', network],
  ['transport', 2, 2, 'th dport', network],
  ['transport', 0, 1, 'icmp type', network],
  ['transport', 13, 1, 'tcp flags', bits],
];

function loadedPayload({ header, offset, bytes }: Load & { readonly name: 'payload' }): Loaded {
  const here = FIELDS.filter(([of, at]) => of === header && at === offset);
  // Only addresses are compared by their beginning.
  const field =
    here.find(([, , size]) => size === bytes) ??
    here.find(([, , size]) => size > 2 && bytes < size);
  const base = header === 'network' ? 'nh' : 'th';
  return field
    ? { words: field[3], reads: field[4] }
    : { words: `@${base},${offset * 8},${bytes * 8}`, reads: (value) => `0x${value}` };
}

const SIGNS = { eq: '', neq: '!= ', lt: '< ', lte: '<= ', gt: '> ', gte: '>= ' } as const;

function xtFlag(invert: boolean): string {
  return invert ? '! ' : '';
}

function portRange([first, last]: readonly [number, number]): string {
  return first === last ? `${first}` : `${first}:${last}`;
}

const XT_STATES = [
  [1, 'INVALID'],
  [8, 'NEW'],
  [4, 'RELATED'],
  [2, 'ESTABLISHED'],
  [0x100, 'UNTRACKED'],
  [0x40, 'SNAT'],
  [0x80, 'DNAT'],
] as const;

function typeList(mask: number): string {
  return Object.entries(TYPES)
    .filter(([type]) => (mask & (1 << Number(type))) !== 0)
    .map(([, name]) => name.toUpperCase())
    .join(',');
}

/** Is a range of ports less than all of them? */
function narrows([first, last]: readonly [number, number]): boolean {
  return first !== 0 || last !== 65_535;
}

function ported(match: XtMatch & { readonly match: 'tcp' | 'udp' }): string {
  const parts = [
    narrows(match.source)
      ? `${xtFlag((match.inverts & 1) !== 0)}--sport ${portRange(match.source)}`
      : '',
    narrows(match.destination)
      ? `${xtFlag((match.inverts & 2) !== 0)}--dport ${portRange(match.destination)}`
      : '',
    match.flagsMask === 0
      ? ''
      : `${xtFlag((match.inverts & 4) !== 0)}--tcp-flags 0x${match.flagsMask.toString(16)} 0x${match.flags.toString(16)}`,
  ];
  return [`-m ${match.match}`, ...parts.filter((part) => part !== '')].join(' ');
}

function conntrackText(match: XtMatch & { readonly match: 'conntrack' }): string {
  const { asks, inverts, states } = match;
  const list = XT_STATES.filter(([bit]) => (states & bit) !== 0).map(([, name]) => name);
  const state =
    (asks & 1) === 0 ? [] : [`${xtFlag((inverts & 1) !== 0)}--ctstate ${list.join(',')}`];
  const direction =
    (asks & 0x1000) === 0 ? [] : [`--ctdir ${(inverts & 0x1000) === 0 ? 'ORIGINAL' : 'REPLY'}`];
  const more = (asks & ~0x1001) === 0 ? [] : ['...'];
  return ['-m conntrack', ...state, ...direction, ...more].join(' ');
}

function matchText(match: XtMatch): string {
  switch (match.match) {
    case 'conntrack':
      return conntrackText(match);
    case 'addrtype': {
      const { source, destination, flags } = match;
      const from =
        source === 0 ? '' : ` ${xtFlag((flags & 1) !== 0)}--src-type ${typeList(source)}`;
      const to =
        destination === 0 ? '' : ` ${xtFlag((flags & 2) !== 0)}--dst-type ${typeList(destination)}`;
      return `-m addrtype${from}${to}${(flags & 4) === 0 ? '' : ' --limit-iface-in'}${(flags & 8) === 0 ? '' : ' --limit-iface-out'}`;
    }
    case 'mark':
      return `-m mark ${xtFlag(match.invert)}--mark 0x${match.mark.toString(16)}/0x${match.mask.toString(16)}`;
    case 'multiport': {
      const of = { source: 'sports', destination: 'dports', either: 'ports' }[match.of];
      return `-m multiport ${xtFlag(match.invert)}--${of} ${match.ports.map(portRange).join(',')}`;
    }
    case 'statistic':
      return match.mode === 'random'
        ? `-m statistic --mode random ${xtFlag(match.invert)}--probability ${(match.probability / 2 ** 31).toFixed(11)}`
        : `-m statistic --mode nth ${xtFlag(match.invert)}--every ${match.every + 1} --packet ${match.packet}`;
    case 'icmp':
      return `-m icmp ${xtFlag(match.invert)}--icmp-type ${match.type === 255 ? 'any' : match.type}`;
    case 'tcp':
    case 'udp':
      return ported(match);
  }
}

function endText(ip: string | null, port: number | null): string {
  const of = port === null ? '' : `:${port}`;
  return ip === null ? of : ip.includes(':') && port !== null ? `[${ip}]${of}` : `${ip}${of}`;
}

const REJECT_WITH = { 'tcp reset': 'tcp-reset' } as const;

function targetText(target: XtTarget): string {
  switch (target.target) {
    case 'DNAT':
      return `-j DNAT --to-destination ${endText(target.ip, target.port)}`;
    case 'SNAT':
      return `-j SNAT --to-source ${endText(target.ip, target.port)}`;
    case 'REDIRECT':
      return `-j REDIRECT${target.port === null ? '' : ` --to-ports ${target.port}`}`;
    case 'REJECT':
      return `-j REJECT --reject-with ${REJECT_WITH[target.answer as keyof typeof REJECT_WITH] ?? target.answer.replace(' ', '-')}`;
    case 'MARK':
      return `-j MARK --set-xmark 0x${target.mark.toString(16)}/0x${target.mask.toString(16)}`;
    case 'MASQUERADE':
    case 'NOTRACK':
      return `-j ${target.target}`;
  }
}

/** What is in the registers while a rule is put into words. */
type Known = Map<number, Loaded>;

const NOTHING: Loaded = { words: '(something)', reads: (value) => `0x${value}` };

/** Notes what an expression loads. */
function noteLoad(known: Known, expression: Load): void {
  switch (expression.name) {
    case 'meta': {
      const bare = ['iif', 'oif', 'iifname', 'oifname'].includes(expression.key);
      const words = bare ? expression.key : `meta ${expression.key}`;
      known.set(expression.to, { words, reads: META[expression.key] ?? ((v) => `${host(v)}`) });
      break;
    }
    case 'ct': {
      const { key, direction, to } = expression;
      const of = direction === null ? '' : `${direction} `;
      known.set(to, { words: `ct ${of}${key}`, reads: CT[key] ?? network });
      break;
    }
    case 'payload':
      known.set(expression.to, loadedPayload(expression));
      break;
    case 'fib':
      known.set(expression.to, { words: `fib ${expression.of} type`, reads: named(TYPES) });
      break;
    case 'numgen': {
      const words = `numgen ${expression.mode} mod ${expression.modulus}`;
      known.set(expression.to, { words, reads: (value) => `${host(value)}` });
      break;
    }
    case 'immediate': {
      const { value, to } = expression;
      const words =
        value.length === 4 ? network(value) : value.length === 8 ? address(value) : address(value);
      known.set(to, { words, reads: network });
      break;
    }
    case 'bitwise': {
      const from = known.get(expression.from) ?? NOTHING;
      const isPlain = /^0*$/.test(expression.xor);
      const mask = from.reads(expression.mask);
      const words = `${from.words} & ${mask}${isPlain ? '' : ` ^ ${from.reads(expression.xor)}`}`;
      known.set(expression.to, { words, reads: from.reads });
      break;
    }
    case 'byteorder': {
      const from = known.get(expression.from) ?? NOTHING;
      known.set(expression.to, { words: from.words, reads: network });
      break;
    }
  }
}

/** What is joined in the registers from one on. */
function joined(known: Known, from: number): string {
  const loaded = [...known].filter(([register]) => register >= from);
  const parts = loaded.toSorted(([a], [b]) => a - b).map(([, { words }]) => words);
  return parts.length === 0 ? NOTHING.words : parts.join(' . ');
}

function say(known: Known, expression: Action): string {
  const at = (register: number | null): Loaded => known.get(register ?? -1) ?? NOTHING;
  switch (expression.name) {
    case 'cmp': {
      const { words: what, reads } = at(expression.from);
      // Whatever states there are but none: one of them.
      if (expression.comparison === 'neq' && /^0*$/.test(expression.value) && what.includes(' & '))
        return what.replace(' & ', ' ');
      const isMasked = what.includes(' & ') && expression.comparison === 'eq';
      return `${what} ${isMasked ? '== ' : SIGNS[expression.comparison]}${reads(expression.value)}`;
    }
    case 'range': {
      const { words: what, reads } = at(expression.from);
      return `${what} ${expression.negate ? '!= ' : ''}${reads(expression.low)}-${reads(expression.high)}`;
    }
    case 'lookup': {
      const what = joined(known, expression.from);
      const map = expression.to === 'verdict' ? 'vmap ' : expression.to === null ? '' : 'map ';
      const text = `${what} ${expression.negate ? '!= ' : ''}${map}@${expression.set}`;
      if (typeof expression.to !== 'number') return text;
      known.clear();
      known.set(expression.to, { words: text, reads: network });
      return '';
    }
    case 'meta set':
      return `meta mark set ${at(expression.from).words}`;
    case 'nat': {
      const ip = expression.ip === null ? null : at(expression.ip).words;
      const port = expression.port === null ? '' : `:${at(expression.port).words}`;
      return `${expression.side === 'source' ? 'snat' : 'dnat'} to ${ip ?? ''}${port}`;
    }
    case 'masq':
      return 'masquerade';
    case 'redir':
      return `redirect${expression.port === null ? '' : ` to :${at(expression.port).words}`}`;
    case 'reject':
      return `reject with ${expression.answer.replace(/^(icmp\w*) /, '$1 type ')}`;
    case 'match':
      return matchText(expression);
    case 'target':
      return targetText(expression);
    case 'notrack':
      return expression.name;
  }
}

/** A rule as its authors would write it; what is not understood in brackets, by its name. */
export function ruleText({ statements, comment }: Rule): string {
  const known: Known = new Map();
  let isSpent = false;
  const parts = statements.map((statement) => {
    if (statement.kind !== 'opaque' || !statement.detail) return formatStatement(statement);
    const { detail } = statement;
    if (isLoad(detail)) {
      // What was compared before is not joined with what comes.
      if (isSpent) known.clear();
      isSpent = false;
      noteLoad(known, detail);
      return '';
    }
    const text = say(known, detail);
    // What a map gave is used by what follows.
    isSpent = text !== '';
    return text;
  });
  const said = comment === '' ? [] : [`comment "${comment}"`];
  return [...parts.filter((part) => part !== ''), ...said].join(' ');
}
