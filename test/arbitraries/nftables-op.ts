/** Batches of nft commands over two tables, one for packets and one for frames, with few names. */
import type { Host, NetnsName } from '../../model/host.ts';
import { findNetns } from '../../model/host.ts';
import { parseIfname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import {
  type ChainHook,
  type LookupField,
  type NftCommand,
  type Rule,
  type SetElement,
  type SetKey,
  type SetKeyType,
  type Statement,
  type Table,
  type TableRef,
  type Verdict,
  keyTypeOf,
  setsOfRule,
  tableKey,
} from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { parsePrefix } from '../../model/prefix.ts';
import type { Draw } from './draw.ts';

const CHAINS = ['base', 'other', 'third'];
const SETS = ['v4', 'v6', 'map4'];

const LINK = parseIfname('veth0');
const MAC = parseMac('4e:20:00:00:00:01');

/** What looks at links and frames, by family: a field, a set whose keys it makes, and one of those keys. */
interface Sight {
  readonly field: LookupField;
  readonly set: string;
  readonly key: SetKey;
}
const OF_LINKS: readonly Sight[] = [
  { field: 'iifname', set: 'links', key: LINK },
  { field: 'iifname . ip saddr', set: 'links4', key: `${LINK} . ${parseIp('10.0.0.1')}` },
  { field: 'iifname . ip6 saddr', set: 'links6', key: `${LINK} . ${parseIp('fd00::1')}` },
  { field: 'oifname', set: 'links', key: LINK },
];
const OF_FRAMES: readonly Sight[] = [
  ...OF_LINKS,
  { field: 'iifname . ether saddr', set: 'macs', key: `${LINK} . ${MAC}` },
  { field: 'iifname . arp saddr ether', set: 'macs', key: `${LINK} . ${MAC}` },
  { field: 'iifname . arp saddr ip', set: 'links4', key: `${LINK} . ${parseIp('10.0.0.1')}` },
  { field: 'ether saddr', set: 'stations', key: MAC },
  { field: 'arp saddr ip', set: 'v4', key: parseIp('10.0.0.1') },
];

function sightsOf({ family }: TableRef): readonly Sight[] {
  return family === 'bridge' ? OF_FRAMES : OF_LINKS;
}

/** Base chains: what both families have, and what frames have not. */
const NAT: ChainHook = { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' };
const RAW: ChainHook = { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' };

function sightCommand(draw: Draw, ref: TableRef): NftCommand {
  const { field, set, key } = draw.of(sightsOf(ref));
  const keyType = keyTypeOf(key);
  const lookup = (name: string): Statement => ({
    kind: 'lookup',
    field,
    negate: draw.oneIn(2),
    set: name,
  });
  const rule = (...statements: Statement[]): NftCommand => ({
    ...ref,
    do: 'add rule',
    chain: draw.of(['base', 'other', 'other', 'third']),
    rule: { statements: [...statements, { kind: 'verdict', verdict: 'drop' }], comment: '' },
  });
  const element: SetElement = { key, verdict: null, comment: draw.of(['', 'pod']) };
  // Keys of one length are of one type here: the kernel knows only lengths.
  const longer: Readonly<Partial<Record<SetKeyType, string>>> = {
    ipv4_addr: 'links',
    ether_addr: 'macs',
    ifname: 'links6',
  };
  const commands: readonly (() => NftCommand)[] = [
    () => ({ ...ref, do: 'add set', set, keyType, holds: 'nothing' }),
    () => rule(lookup(set)),
    () => rule({ kind: 'lookup', field: 'iifname', negate: false, set: 'links' }, lookup(set)),
    () => rule(lookup(longer[keyType] ?? set)),
    () =>
      rule(
        {
          kind: 'match',
          field: draw.of(['iifname', 'oifname'] as const),
          negate: draw.oneIn(2),
          value: LINK,
        },
        ...(draw.oneIn(2) ? [{ kind: 'counter' } as const] : []),
        lookup(set),
      ),
    () => ({ ...ref, do: 'add element', set, element }),
    () => ({ ...ref, do: 'add element', set: draw.of(['v4', 'links', 'macs']), element }),
    () => ({ ...ref, do: 'delete element', set: draw.of([set, set, 'v4', 'links']), key }),
    () => ({ ...ref, do: 'delete set', set }),
  ];
  return draw.of(commands)();
}

const TO4 = 'ipv4_addr . inet_service';
const TO6 = 'ipv6_addr . inet_service';
const PORT_FIELDS = 'meta l4proto . th dport';

/** Maps from ports to where their packets go, by the field that is looked up in them. */
const PORT_MAPS = [
  { set: 'ports4', field: PORT_FIELDS, holds: TO4, at: undefined },
  { set: 'ports6', field: PORT_FIELDS, holds: TO6, at: undefined },
  { set: 'hostports4', field: `ip daddr . ${PORT_FIELDS}`, holds: TO4, at: '10.0.0.9' },
] as const;

/** What sends packets for a port elsewhere, and marks them. */
function portCommand(draw: Draw, ref: TableRef): NftCommand {
  const { set, field, holds, at } = draw.of(PORT_MAPS);
  const port = `${draw.of(['tcp', 'udp'] as const)} . ${draw.of([80, 443])}` as const;
  const key: SetKey = at === undefined ? port : `${parseIp(at)} . ${port}`;
  const ip = parseIp(holds === TO4 ? '10.0.0.1' : 'fd00::1');
  const element: SetElement = {
    key,
    verdict: null,
    target: `${ip} . ${draw.of([80, 8080])}`,
    comment: draw.of(['', 'pod']),
  };
  const rule = (...statements: Statement[]): NftCommand => ({
    ...ref,
    do: 'add rule',
    chain: draw.of(['dst', 'dst', 'dst', 'other', 'base']),
    rule: { statements, comment: '' },
  });
  const dnat = (map: string): Statement => ({
    kind: 'dnat',
    family: holds === TO4 ? 4 : 6,
    field,
    map,
  });
  const mark: Statement = { kind: 'mark', bits: draw.of([0x2000, 1]), on: draw.oneIn(2) };
  const hook: ChainHook = { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' };
  const commands: readonly (() => NftCommand)[] = [
    () => ({ ...ref, do: 'add chain', chain: 'dst', hook }),
    () => ({ ...ref, do: 'add set', set, keyType: keyTypeOf(key), holds }),
    () => ({ ...ref, do: 'add set', set, keyType: keyTypeOf(key), holds }),
    () => ({ ...ref, do: 'add element', set, element }),
    () => ({ ...ref, do: 'add element', set, element }),
    () => ({ ...ref, do: 'add element', set: draw.of([set, 'v4', 'map4']), element }),
    () => ({ ...ref, do: 'delete element', set, key }),
    () => rule(dnat(set)),
    () => rule({ kind: 'local' }, dnat(draw.oneIn(6) ? 'v4' : set)),
    () => rule(mark),
    () => rule({ kind: 'marked', bits: 0x2000 }, { kind: 'verdict', verdict: 'accept' }),
    () => ({ ...ref, do: 'delete set', set }),
  ];
  return draw.of(commands)();
}

/** A rule before the last of a chain, or one of a chain less; seldom of a chain that has none. */
function placedCommand(draw: Draw, ref: TableRef, table: Table): NftCommand {
  const chains = Object.values(table.chains).filter(({ rules }) => rules.length > 0);
  const chain = draw.oneIn(8) ? undefined : chains[0] && draw.of(chains);
  const accept: Rule = {
    statements: [{ kind: 'counter' }, { kind: 'verdict', verdict: 'accept' }],
    comment: draw.of(['', 'why']),
  };
  const name = chain?.name ?? draw.of(CHAINS);
  return draw.oneIn(2)
    ? { ...ref, do: 'insert rule', chain: name, rule: accept }
    : { ...ref, do: 'delete rule', chain: name, rule: chain ? draw.of(chain.rules) : accept };
}

function leadTo(draw: Draw, ref: TableRef, from: string, to: string): NftCommand {
  const verdict = {
    kind: 'verdict',
    verdict: draw.of(['jump', 'goto'] as const),
    chain: to,
  } as const;
  return { ...ref, do: 'add rule', chain: from, rule: { statements: [verdict], comment: '' } };
}

/** A loop below a base chain, now and then without one of its parts. */
function loopCommands(draw: Draw, ref: TableRef): NftCommand[] {
  const all: NftCommand[] = [
    { ...ref, do: 'add chain', chain: 'third', hook: null },
    leadTo(draw, ref, 'base', 'other'),
    leadTo(draw, ref, 'other', 'third'),
    leadTo(draw, ref, 'third', 'other'),
  ];
  const without = draw.of([all.length, all.length, 1, 2, 3]);
  return all.filter((_command, i) => i !== without);
}

/** A chain or a set goes that rules lead to. */
function usedCommand(draw: Draw, ref: TableRef, table: Table): NftCommand | undefined {
  const rules = Object.values(table.chains).flatMap((chain) => chain.rules);
  const chains = rules.flatMap(({ statements }) =>
    statements.flatMap((s) => (s.kind === 'verdict' && 'chain' in s ? [s.chain] : [])),
  );
  const commands: NftCommand[] = [
    ...chains.map((chain) => ({ ...ref, do: 'delete chain' as const, chain })),
    ...rules.flatMap(setsOfRule).map((set) => ({ ...ref, do: 'delete set' as const, set })),
  ];
  return commands.length > 0 ? draw.of(commands) : undefined;
}

function nftCommand(draw: Draw, ref: TableRef): NftCommand {
  if (draw.oneIn(3)) return sightCommand(draw, ref);
  if (draw.oneIn(3)) return portCommand(draw, ref);
  const verdict = (): Verdict =>
    draw.of<Verdict>([
      { verdict: 'accept' },
      { verdict: 'return' },
      { verdict: 'goto', chain: draw.of(CHAINS) },
      { verdict: 'jump', chain: draw.of(CHAINS) },
    ]);
  const element = (): SetElement => {
    const set = draw.of([0, 1]);
    return set === 0
      ? {
          key: parseIp(draw.of(['10.0.0.1', '10.0.0.2'])),
          verdict: null,
          comment: draw.of(['', 'pod']),
        }
      : { key: parseIp(draw.of(['10.0.0.1', '10.0.0.2'])), verdict: verdict(), comment: '' };
  };
  const statements = (): Statement[] => [
    ...draw.of<Statement[]>([
      [],
      [
        {
          kind: 'match',
          field: 'ip daddr',
          negate: draw.oneIn(2),
          value: parsePrefix(draw.of(['10.0.0.0/24', '224.0.0.0/4', '10.0.0.8/29'])),
        },
      ],
      [
        {
          kind: 'match',
          field: 'ip6 daddr',
          negate: draw.oneIn(2),
          value: parsePrefix(draw.of(['fd00::/64', 'ff00::/8'])),
        },
      ],
      [{ kind: 'match', field: 'ip saddr', negate: false, value: parseIp('10.0.0.1') }],
      [{ kind: 'lookup', field: 'ip saddr', negate: draw.oneIn(2), set: 'v4' }],
    ]),
    ...draw.of<Statement[]>([
      [{ kind: 'verdict', ...verdict() }],
      [{ kind: 'vmap', field: 'ip saddr', map: 'map4' }],
      [{ kind: 'masquerade' }],
    ]),
  ];
  const commands: readonly (() => NftCommand)[] = [
    () => ({ ...ref, do: 'add table' }),
    () => ({ ...ref, do: 'add chain', chain: draw.of(CHAINS), hook: null }),
    () => ({
      ...ref,
      do: 'add chain',
      chain: 'base',
      hook: draw.of<ChainHook>(
        ref.family === 'bridge'
          ? [RAW, RAW, NAT, { ...RAW, type: 'nat' }, { ...RAW, policy: 'drop' }]
          : [NAT, NAT, RAW, { ...NAT, type: 'filter' }, { ...NAT, priority: 99 }],
      ),
    }),
    () => ({
      ...ref,
      do: 'add set',
      set: draw.of(['v4', 'map4']),
      keyType: 'ipv4_addr',
      holds: draw.of(['nothing', 'verdict'] as const),
    }),
    () => ({ ...ref, do: 'add set', set: 'v4', keyType: 'ipv4_addr', holds: 'nothing' }),
    () => ({ ...ref, do: 'add set', set: 'map4', keyType: 'ipv4_addr', holds: 'verdict' }),
    () => ({ ...ref, do: 'add element', set: draw.of(SETS), element: element() }),
    () => ({
      ...ref,
      do: 'add rule',
      chain: draw.of(CHAINS),
      rule: { statements: statements(), comment: draw.of(['', 'why']) },
    }),
    () => ({
      ...ref,
      do: 'delete element',
      set: draw.of(SETS),
      key: parseIp(draw.of(['10.0.0.1', '10.0.0.2'])),
    }),
    () => ({
      ...ref,
      do: draw.of(['delete chain', 'flush chain'] as const),
      chain: draw.of(CHAINS),
    }),
    () => ({ ...ref, do: 'delete set', set: draw.of(SETS) }),
    () => ({ ...ref, do: 'delete table' }),
  ];
  return draw.of(commands)();
}

/** A new table, bare or with something that rules and elements can name. */
function furnished(draw: Draw, much: number, ref: TableRef): NftCommand[] {
  const keyType = 'ipv4_addr';
  // Where nothing is translated, rules that do it may stand only in chains that it does not lead to.
  const hook = ref.family === 'bridge' || draw.oneIn(3) ? RAW : NAT;
  const sights = new Map(sightsOf(ref).map(({ set, key }) => [set, key]));
  sights.delete('v4');
  const all: readonly NftCommand[] = [
    { ...ref, do: 'add table' },
    { ...ref, do: 'add chain', chain: 'other', hook: null },
    { ...ref, do: 'add set', set: 'v4', keyType, holds: 'nothing' },
    { ...ref, do: 'add set', set: 'map4', keyType, holds: 'verdict' },
    { ...ref, do: 'add chain', chain: 'base', hook },
  ];
  const more = [...sights].map(([set, key]): NftCommand => ({
    ...ref,
    do: 'add set',
    set,
    keyType: keyTypeOf(key),
    holds: 'nothing',
  }));
  return much === 0 ? all.slice(0, 1) : [...all.slice(0, 2 + much), ...more];
}

/** A batch; what it holds is drawn command by command, so that one of several draws the same things as one alone. */
export function nftBatch(netns: NetnsName, host: Host, draw: Draw): Op {
  const count = 1 + draw.of([0, 0, 1, 2, 3]);
  const ref: TableRef = { family: draw.of(['inet', 'bridge'] as const), table: 'fuzz' };
  const table = findNetns(host, netns)?.nftables[tableKey(ref)];
  // By itself: what it places a rule at is as it was before the batch.
  if (table && draw.oneIn(6))
    return { op: 'nft.batch', netns, commands: [placedCommand(draw, ref, table)] };
  const used = table && draw.oneIn(8) ? usedCommand(draw, ref, table) : undefined;
  if (used) return { op: 'nft.batch', netns, commands: [used] };
  if (table?.chains['base'] && table.chains['other'] && draw.oneIn(5))
    return { op: 'nft.batch', netns, commands: loopCommands(draw, ref) };
  const start: NftCommand[] = table ? [] : furnished(draw, draw.of([0, 1, 2, 3]), ref);
  const commands = Array.from({ length: count }, () => nftCommand(draw, ref));
  return { op: 'nft.batch', netns, commands: [...start, ...commands] };
}
