/** Programs on the forwarding databases of bridges (K-6.1, K-6.5). */
import { allEntries } from '../../model/fdb.ts';
import type { Host } from '../../model/host.ts';
import { ZERO_MAC, parseMac } from '../../model/mac.ts';
import type { OpOf } from '../../model/op.ts';
import { BR0, BRIDGE_MAC, ETH0, GONE, PAIR, type Program, V0, V0_MAC, linkOf } from './program.ts';

const MAC = parseMac('02:00:00:00:00:f0');

const add = (changes: Partial<OpOf<'fdb.add'>> = {}): OpOf<'fdb.add'> => ({
  op: 'fdb.add',
  netns: 'one',
  ifname: V0,
  self: false,
  mac: MAC,
  state: 'static',
  ...changes,
});

const del = (changes: Partial<OpOf<'fdb.del'>> = {}): OpOf<'fdb.del'> => ({
  op: 'fdb.del',
  netns: 'one',
  ifname: V0,
  self: false,
  mac: MAC,
  ...changes,
});

const entries = (host: Host): unknown => {
  const bridge = linkOf('one', BR0)(host);
  const netns = host.netns['one'];
  return netns && bridge?.kind === 'bridge'
    ? allEntries(netns, bridge).map(({ mac, port, state }) => [mac, port, state])
    : undefined;
};

const OWN = [
  [BRIDGE_MAC, null, 'local'],
  [V0_MAC, null, 'local'],
];

/** Of `fdb.add`. */
export const FDB_ADD: readonly Program[] = [
  {
    name: 'of a port',
    given: PAIR,
    op: add(),
    outcome: { see: entries, is: [[MAC, V0, 'static'], ...OWN] },
  },
  {
    name: 'of the bridge itself',
    given: PAIR,
    op: add({ ifname: BR0, self: true, state: 'local' }),
    outcome: { see: entries, is: [...OWN, [MAC, null, 'local']] },
  },
  {
    name: 'goes when its port leaves the bridge',
    given: [...PAIR, add()],
    op: { op: 'link.set', netns: 'one', ifname: V0, set: { master: null } },
    outcome: { see: entries, is: [[BRIDGE_MAC, null, 'local']] },
  },
  {
    name: 'gives way to the own address of a port',
    given: [...PAIR, add()],
    op: { op: 'link.set', netns: 'one', ifname: V0, set: { mac: MAC } },
    outcome: {
      see: entries,
      is: [
        [BRIDGE_MAC, null, 'local'],
        [MAC, null, 'local'],
      ],
    },
  },
  { name: 'that is there', given: [...PAIR, add()], op: add(), outcome: 'EEXIST' },
  {
    name: "of a port's own address",
    given: PAIR,
    op: add({ mac: V0_MAC }),
    outcome: 'EEXIST',
  },
  {
    name: 'of the bridge itself, as if it were elsewhere',
    given: PAIR,
    op: add({ ifname: BR0, self: true }),
    outcome: 'EINVAL',
  },
  { name: 'of no address', given: PAIR, op: add({ mac: ZERO_MAC }), outcome: 'EINVAL' },
  {
    name: 'of a link that is no port',
    given: PAIR,
    op: add({ netns: 'two', ifname: ETH0 }),
    outcome: 'EOPNOTSUPP',
  },
  { name: 'of a link that is missing', given: PAIR, op: add({ ifname: GONE }), outcome: 'ENODEV' },
];

/** Of `fdb.del`. */
export const FDB_DEL: readonly Program[] = [
  {
    name: 'leaves what the bridge has by itself',
    given: [...PAIR, add()],
    op: del(),
    outcome: { see: entries, is: OWN },
  },
  {
    name: 'of what the bridge has by itself',
    given: PAIR,
    op: del({ mac: V0_MAC }),
    outcome: { see: entries, is: [[BRIDGE_MAC, null, 'local']] },
  },
  {
    name: 'of what the bridge has by itself, until the address is given anew',
    given: [...PAIR, del({ mac: V0_MAC })],
    op: { op: 'link.set', netns: 'one', ifname: V0, set: { mac: V0_MAC } },
    outcome: { see: entries, is: OWN },
  },
  { name: 'that is not there', given: PAIR, op: del(), outcome: 'ENOENT' },
  {
    name: 'of another place',
    given: [...PAIR, add({ ifname: BR0, self: true, state: 'local' })],
    op: del(),
    outcome: 'ENOENT',
  },
  {
    name: 'of a link that is no port',
    given: PAIR,
    op: del({ netns: 'two', ifname: ETH0 }),
    outcome: 'EOPNOTSUPP',
  },
  { name: 'of a link that is missing', given: PAIR, op: del({ ifname: GONE }), outcome: 'ENODEV' },
];
