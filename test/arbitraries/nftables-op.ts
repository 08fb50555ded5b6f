/** Batches of nft commands over one table with few names. */
import type { Host, NetnsName } from '../../model/host.ts';
import { findNetns } from '../../model/host.ts';
import { parseIp } from '../../model/ip.ts';
import type { NftCommand, SetElement, Statement, Verdict } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { type Draw, type OpSeed, type Repertoire, SEED_LENGTH, drawFrom } from './draw.ts';

const CHAINS = ['base', 'other', 'third'];
const SETS = ['v4', 'v6', 'map4'];

function nftCommand(draw: Draw): NftCommand {
  const ref = { family: 'inet' as const, table: 'fuzz' };
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
      hook: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
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
function furnished(much: number): NftCommand[] {
  const ref = { family: 'inet' as const, table: 'fuzz' };
  const keyType = 'ipv4_addr';
  const all: readonly NftCommand[] = [
    { ...ref, do: 'add table' },
    { ...ref, do: 'add chain', chain: 'other', hook: null },
    { ...ref, do: 'add set', set: 'v4', keyType, holds: 'nothing' },
    { ...ref, do: 'add set', set: 'map4', keyType, holds: 'verdict' },
    {
      ...ref,
      do: 'add chain',
      chain: 'base',
      hook: { type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' },
    },
  ];
  return all.slice(0, much === 0 ? 1 : 2 + much);
}

/** One seed drives several commands of a batch: each reads it from another place. */
export function nftBatch(netns: NetnsName, host: Host, seed: OpSeed, repertoire: Repertoire): Op {
  const rotated = (by: number): OpSeed => [...seed.slice(by), ...seed.slice(0, by)];
  const count = 1 + ((seed[SEED_LENGTH - 1] ?? 0) % 4);
  const commands = Array.from({ length: count }, (_, i) =>
    nftCommand(drawFrom(rotated(i), repertoire)),
  );
  const start: NftCommand[] = findNetns(host, netns)?.nftables['inet fuzz']
    ? []
    : furnished((seed[SEED_LENGTH - 2] ?? 0) % 4);
  return { op: 'nft.batch', netns, commands: [...start, ...commands] };
}
