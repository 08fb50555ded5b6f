/** Histories of a node: networks that can be side by side, and what happens to their pods. */
import fc from 'fast-check';
import type { Errno } from '../../model/errno.ts';
import type { Ruleset } from '../../model/nftables.ts';
import type { Fate, Step } from '../plugin/history/step.ts';
import { formatStep } from '../plugin/history/step.ts';
import { type RawConfig, configurations, layer2Configurations } from './configuration.ts';
import { foreignTables } from './machine.ts';
import { opSeeds } from './program.ts';

/** With more pods than this, they come more often than they go. */
const CROWD = 20;

/** How many pods, with a netns each, there are at once. */
export const HISTORY_PODS = 5;

/** What a node is at first, and what happens on it. */
export interface History {
  readonly networks: readonly RawConfig[];
  /** Which bridge somebody else has already. */
  readonly foreignBridge: boolean;
  /** Tables of others, some of which drop what is forwarded. */
  readonly tables: Ruleset;
  readonly steps: readonly Step[];
  /** Decides in which orders plans are tried, and which of them are looked at. */
  readonly luck: number;
}

/** Ranges of a network, so that no two have an address in common: large ones, and those that are soon exhausted. */
function rangesOf(index: number, size: 'large' | 'small'): fc.Arbitrary<unknown[]> {
  const large = [[{ subnet: `10.20${index}.0.0/16` }], [{ subnet: `fd0${index}::/64` }]];
  const small = [
    [{ subnet: `10.20${index}.0.0/29` }],
    [{ subnet: `fd0${index}::/125` }],
    [
      { subnet: `10.21${index}.0.0/30` },
      { subnet: `10.21${index}.1.0/28`, rangeStart: `10.21${index}.1.4` },
    ],
  ];
  return fc.shuffledSubarray(size === 'large' ? large : small, { minLength: 1 });
}

/** A network of a history: a configuration of its own name and addresses, on a bridge that it may share. */
function network(index: number, pods: number): fc.Arbitrary<RawConfig> {
  const own = fc
    .record({
      raw: configurations(),
      bridge: fc.constantFrom('cni0', 'cni0', 'cni1', 'br0'),
      ranges: fc
        .constantFrom('large' as const, pods > CROWD ? ('large' as const) : ('small' as const))
        .chain((size) => rangesOf(index, size)),
      reuse: fc.constantFrom({}, {}, { reuseDelaySeconds: 30 }),
    })
    .map(({ raw, bridge, ranges, reuse }) => ({
      ...raw,
      name: `net${index}`,
      bridge,
      // What others have put on the bridge is not to be replaced: another network may be they.
      forceAddress: false,
      ipam: { ...(raw['ipam'] as object), ranges, ...reuse },
    }));
  const layer2 = layer2Configurations().map((raw) => ({
    ...raw,
    name: `net${index}`,
    bridge: 'cni1',
  }));
  return fc.oneof({ weight: 9, arbitrary: own }, layer2);
}

/** One network or several. */
function anyNetworks(pods: number): fc.Arbitrary<RawConfig[]> {
  return fc.oneof(
    fc.tuple(network(0, pods)),
    fc.tuple(network(0, pods), network(1, pods)),
    fc.tuple(network(0, pods), network(1, pods), network(2, pods)),
  );
}

const ERRNOS: readonly Errno[] = ['ENOBUFS', 'ENOMEM', 'EBUSY', 'EPERM', 'EEXIST', 'EINVAL'];

/** How a call fares: well half of the time. */
function fates(): fc.Arbitrary<Fate> {
  const fine = fc.constant<Fate>({ kind: 'fine' });
  const refused = fc.record({
    kind: fc.constantFrom('refused' as const, 'half' as const),
    at: fc.nat(16),
    errno: fc.constantFrom(...ERRNOS),
    lasts: fc.constantFrom(false, false, false, true),
  });
  const unreadable = fc.record({ kind: fc.constant('unreadable' as const), at: fc.nat(4) });
  const dies = fc.record({ kind: fc.constant('dies' as const), after: fc.nat(70) });
  return fc.oneof(
    { weight: 6, arbitrary: fine },
    { weight: 3, arbitrary: refused },
    { weight: 1, arbitrary: unreadable },
    { weight: 3, arbitrary: dies },
  );
}

function steps(pods: number): fc.Arbitrary<Step> {
  const pod = fc.nat(pods - 1);
  const of = fc.nat(5);
  const add = fc.record({
    do: fc.constant('ADD' as const),
    pod,
    network: of,
    ifname: fc.constantFrom('eth0', 'eth0', 'eth0', 'net1'),
    container: fc.constantFrom('same' as const, 'new' as const),
    fate: fates(),
  });
  const attachment = fc.nat(1000);
  const del = fc.record({ do: fc.constant('DEL' as const), attachment, fate: fates() });
  const check = fc.record({ do: fc.constant('CHECK' as const), attachment });
  const gc = fc.record({
    do: fc.constant('GC' as const),
    network: of,
    known: fc.constantFrom('all' as const, 'all' as const, 'some' as const, 'none' as const),
    fate: fates(),
  });
  const status = fc.record({ do: fc.constant('STATUS' as const), network: of });
  const netns = fc.record({ do: fc.constant('netns' as const), pod });
  const foreign = fc.record({ do: fc.constant('foreign' as const), seed: opSeeds() });
  const damage = fc.record({
    do: fc.constant('damage' as const),
    attachment,
    what: fc.nat(500),
    mend: fc.constantFrom(true, true, false),
  });
  const reboot = fc.record({
    do: fc.constant('reboot' as const),
    state: fc.constantFrom('kept' as const, 'lost' as const),
  });
  return fc.oneof(
    { weight: 24 * Math.ceil(pods / CROWD), arbitrary: add },
    { weight: 14, arbitrary: del },
    { weight: 4, arbitrary: check },
    { weight: 4, arbitrary: gc },
    { weight: 2, arbitrary: status },
    { weight: 3, arbitrary: netns },
    { weight: 8, arbitrary: foreign },
    { weight: 12, arbitrary: damage },
    { weight: 1, arbitrary: reboot },
  );
}

/** A history as lines of text. */
export function formatHistory(history: History): string {
  const { networks, foreignBridge, tables, steps: all, luck } = history;
  return [
    '',
    ...Object.values(tables).map((table) => `  ${JSON.stringify(table)}`),
    ...networks.map((raw) => `  ${JSON.stringify(raw)}`),
    `  luck ${luck}${foreignBridge ? ', br0 is somebody else’s' : ''}`,
    ...all.map((step, i) => `  ${i}. ${formatStep(step)}`),
  ].join('\n');
}

/** Histories of up to `maxLength` steps, each of which prints itself line by line. */
export function histories(maxLength: number, pods = HISTORY_PODS): fc.Arbitrary<History> {
  return fc
    .record({
      networks: anyNetworks(pods),
      foreignBridge: fc.boolean(),
      tables: foreignTables(),
      steps: fc.array(steps(pods), { minLength: 1, maxLength, size: 'max' }),
      luck: fc.nat(0x7fffffff),
    })
    .map((history) => ({
      ...history,
      [fc.toStringMethod]: () => formatHistory(history),
    }));
}
