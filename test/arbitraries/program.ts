/**
 * Random programs of operations over a small universe of names, where collisions are the point. A
 * program is a list of seeds; each is resolved against the host as the model has it by then, so that
 * seven in ten operations are done and the others are near misses.
 */
import fc from 'fast-check';
import { type Host, type NetnsName, findNetns } from '../../model/host.ts';
import type { KernelProfile } from '../../model/kernel-profile.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import {
  addressAdd,
  addressDel,
  conntrackFlush,
  neighbourAdd,
  neighbourDel,
  toldAddress,
} from './address-op.ts';
import {
  ALL_FAMILIES,
  type Draw,
  type OpFamilies,
  type OpFamily,
  type OpSeed,
  type Repertoire,
  SEED_LENGTH,
  SEED_MAX,
  drawFrom,
  varySeed,
} from './draw.ts';
import { fdbAdd, fdbDel } from './fdb-op.ts';
import {
  altnameAdd,
  altnameDel,
  groupDel,
  linkAdd,
  linkDel,
  linkMove,
  linkRename,
  linkSet,
  portSet,
} from './link-op.ts';
import { macvlanAdd, macvlanSet } from './macvlan-op.ts';
import { linksOf } from './names.ts';
import { nftBatch } from './nftables-op.ts';
import { routeAdd, routeDel } from './route-op.ts';
import { ruleAdd, ruleDel } from './rule-op.ts';
import { PINS, type Pins, netnsOp, pinOps, sysctlSet, universeOps } from './sysctl-op.ts';
import { filterAdd, filterDel, qdiscAdd, qdiscDel } from './traffic-control-op.ts';
import { vlanAdd, vlanDel } from './vlan-op.ts';
import { remoteAdd, remoteDel, vxlanAdd } from './vxlan-op.ts';

type Maker = (netns: NetnsName, host: Host, draw: Draw) => Op;

/** What programs may hold and start from. */
export interface Setting {
  readonly repertoire: Repertoire;
  readonly pins: Pins;
  /** Absent: operations of all families. */
  readonly families?: OpFamilies;
  /** The kernel that they are resolved for, and refused by. */
  readonly kernel: KernelProfile;
}

/** Programs whose hosts can be planned from and to. */
export const PLANNABLE: Setting = {
  repertoire: 'plannable',
  pins: PINS,
  kernel: { bridgeVlans: true },
};

/** Bridges are what most of their family needs. */
function onBridges(maker: Maker, makeLink: Maker): Maker {
  return (netns, host, draw) =>
    linksOf(host, netns).some((link) => link.kind === 'bridge') || draw.oneIn(4)
      ? maker(netns, host, draw)
      : makeLink(netns, host, draw);
}

/** On a kernel whose bridges know no VLANs adding one is always refused, and once is enough. */
function vlanOp(netns: NetnsName, host: Host, draw: Draw): Op {
  return draw.oneIn(2) && (host.kernel?.bridgeVlans || draw.oneIn(4))
    ? vlanAdd(netns, host, draw)
    : vlanDel(netns, host, draw);
}

/** What looks at more than one netns. */
interface Across {
  readonly makeLink: Maker;
  readonly moveLink: Maker;
}

/** Each as often as it stands here. */
function makersOf(family: OpFamily, { makeLink, moveLink }: Across): readonly Maker[] {
  switch (family) {
    case 'names':
      return [linkRename, altnameAdd, altnameDel, moveLink];
    case 'bridges':
      return twice(portSet, portSet, vlanOp, vlanOp, fdbAdd, fdbAdd, fdbDel).map((maker) =>
        onBridges(maker, makeLink),
      );
    case 'tunnels':
      return [vxlanAdd, vxlanAdd, vxlanAdd, remoteAdd, remoteAdd, remoteAdd, remoteDel];
    case 'macvlans':
      return [macvlanAdd, macvlanAdd, macvlanAdd, macvlanSet, macvlanSet, macvlanSet];
    case 'addresses':
      return twice(addressAdd, addressAdd, addressAdd, addressDel, addressDel, toldAddress);
    case 'routes':
      return twice(routeAdd, routeAdd, routeAdd, routeDel, routeDel);
    case 'rules':
      return twice(ruleAdd, ruleAdd, ruleDel);
    case 'neighbours':
      return twice(neighbourAdd, neighbourDel);
    case 'traffic control':
      return twice(qdiscAdd, qdiscAdd, qdiscDel, filterAdd, filterAdd, filterDel);
    case 'sysctls':
      return twice(sysctlSet, sysctlSet);
    case 'nftables':
      return twice(nftBatch, nftBatch, nftBatch, (netns, _host, draw) =>
        conntrackFlush(netns, draw),
      );
    case 'netns':
      return [netnsOp];
  }
}

function twice(...makers: readonly Maker[]): Maker[] {
  return [...makers, ...makers];
}

/** The operation that a seed makes of the host as it is, be it possible or not. */
function makeOp(
  host: Host,
  universe: readonly NetnsName[],
  seed: OpSeed,
  { repertoire, families = ALL_FAMILIES }: Setting,
): Op {
  const draw = drawFrom(seed, repertoire, families);
  const netns = draw.of(universe);
  const makeLink: Maker = (name) => linkAdd(name, universe, host, draw);
  const moveLink: Maker = (name) => linkMove(name, universe, host, draw);
  // Where there are few links there is little to do.
  const few = linksOf(host, netns).length;
  if (!findNetns(host, netns) && !draw.oneIn(3)) return { op: 'netns.add', netns };
  if (few === 0 ? !draw.oneIn(6) : few < 3 && draw.oneIn(3)) return makeLink(netns, host, draw);
  const makers: readonly Maker[] = [
    ...twice(makeLink, linkSet, linkSet, linkSet),
    // The kernel takes some 20 ms for each.
    linkDel,
    groupDel,
    ...[...families]
      .filter((family) => family !== 'netns' || repertoire === 'any')
      .flatMap((family) => makersOf(family, { makeLink, moveLink })),
  ];
  return (makers[(seed[0] ?? 0) % makers.length] as Maker)(netns, host, draw);
}

/** How often a seed is varied until its operation is what it is to be: possible, or a near miss. */
const TRIES = 8;

/** The operation that a seed stands for, given the host as it is. Seven in ten are possible, where the host lets them be. */
export function resolveOp(
  host: Host,
  universe: readonly NetnsName[],
  seed: OpSeed,
  setting: Setting,
): Op {
  const isPossible = (seed[SEED_LENGTH - 1] ?? 0) % 10 < 7;
  const first = makeOp(host, universe, seed, setting);
  for (let tries = 1, op = first; tries <= TRIES; tries += 1) {
    if (applyOp(host, op).ok === isPossible) return op;
    op = makeOp(host, universe, varySeed(seed, tries), setting);
  }
  return first;
}

/** The operations of a program and the host after each; one that is refused leaves the host as it was. */
export function runProgram(
  universe: readonly NetnsName[],
  seeds: readonly OpSeed[],
  setting: Setting,
): { readonly ops: readonly Op[]; readonly host: Host } {
  let host: Host = { netns: {}, kernel: setting.kernel };
  const ops: Op[] = [];
  const run = (op: Op): boolean => {
    ops.push(op);
    const outcome = applyOp(host, op);
    if (outcome.ok) host = outcome.host;
    return outcome.ok;
  };
  for (const op of universeOps(universe, setting.pins)) run(op);
  for (const seed of seeds) {
    const op = resolveOp(host, universe, seed, setting);
    // Nothing happens in a netns whose settings are not said yet.
    if (run(op) && op.op === 'netns.add')
      for (const pin of pinOps(op.netns, setting.pins)) run(pin);
  }
  return { ops, host };
}

/** A seed of one operation. */
export function opSeeds(): fc.Arbitrary<OpSeed> {
  return fc.array(fc.nat({ max: SEED_MAX }), { minLength: SEED_LENGTH, maxLength: SEED_LENGTH });
}

/** Seeds of programs of up to `maxLength` operations. */
export function programs(maxLength: number): fc.Arbitrary<OpSeed[]> {
  return fc.array(opSeeds(), { maxLength });
}
