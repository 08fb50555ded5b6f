/**
 * Random programs of operations over a small universe of names, where collisions are the point. A
 * program is a list of seeds; each is resolved against the host as the model has it by then, so that
 * most operations make sense and the others are near misses.
 */
import fc from 'fast-check';
import { type Host, type NetnsName, findNetns } from '../../model/host.ts';
import type { KernelProfile } from '../../model/kernel-profile.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import {
  addressAdd,
  addressAnnounce,
  addressDel,
  conntrackFlush,
  neighbourAdd,
  neighbourDel,
} from './address-op.ts';
import {
  type Draw,
  type OpSeed,
  type Repertoire,
  SEED_LENGTH,
  SEED_MAX,
  drawFrom,
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
import { linksOf } from './names.ts';
import { nftBatch } from './nftables-op.ts';
import { routeAdd, routeDel } from './route-op.ts';
import { ruleAdd, ruleDel } from './rule-op.ts';
import { PINS, type Pins, findMissingPin, netnsOp, sysctlSet, universeOps } from './sysctl-op.ts';
import { filterAdd, filterDel, qdiscAdd, qdiscDel } from './traffic-control-op.ts';
import { vlanAdd, vlanDel } from './vlan-op.ts';

type Maker = (netns: NetnsName, host: Host, draw: Draw) => Op;

/** What programs may hold and start from. */
export interface Setting {
  readonly repertoire: Repertoire;
  readonly pins: Pins;
  /** The kernel that they are resolved for, and refused by. */
  readonly kernel: KernelProfile;
}

/** Programs whose hosts can be planned from and to. */
export const PLANNABLE: Setting = {
  repertoire: 'plannable',
  pins: PINS,
  kernel: { bridgeVlans: true },
};

/** The operation that a seed stands for, given the host as it is. */
export function resolveOp(
  host: Host,
  universe: readonly NetnsName[],
  seed: OpSeed,
  { repertoire, pins }: Setting,
): Op {
  const draw = drawFrom(seed, repertoire);
  const netns = draw.of(universe);
  const pin = findMissingPin(host, netns, pins);
  if (pin) return pin;
  // No link comes into a netns whose settings are not said yet.
  const ready = universe.filter((name) => !findMissingPin(host, name, pins));
  const makeLink = (): Op => linkAdd(netns, ready, host, draw);
  // Where there are few links there is little to do.
  const few = linksOf(host, netns).length;
  if (!findNetns(host, netns) && !draw.oneIn(4)) return { op: 'netns.add', netns };
  if (few === 0 ? !draw.oneIn(6) : few < 3 && draw.oneIn(3)) return makeLink();
  const makers: readonly Maker[] = [
    makeLink,
    makeLink,
    linkSet,
    linkSet,
    linkSet,
    linkSet,
    addressAdd,
    addressAdd,
    addressAdd,
    addressAdd,
    routeAdd,
    routeAdd,
    routeAdd,
    linkDel,
    groupDel,
    linkRename,
    altnameAdd,
    altnameDel,
    () => linkMove(netns, ready, host, draw),
    portSet,
    portSet,
    vlanAdd,
    vlanDel,
    fdbAdd,
    fdbAdd,
    fdbDel,
    qdiscAdd,
    qdiscAdd,
    qdiscDel,
    filterAdd,
    filterAdd,
    filterDel,
    addressDel,
    routeDel,
    routeDel,
    ruleAdd,
    ruleAdd,
    ruleDel,
    neighbourAdd,
    neighbourDel,
    sysctlSet,
    sysctlSet,
    () => nftBatch(netns, host, seed, repertoire),
    addressAnnounce,
    () => conntrackFlush(netns, draw),
    ...(repertoire === 'any' ? [() => netnsOp(netns, draw)] : []),
  ];
  return (makers[(seed[0] ?? 0) % makers.length] as Maker)(netns, host, draw);
}

/** The operations of a program and the host after each; one that is refused leaves the host as it was. */
export function runProgram(
  universe: readonly NetnsName[],
  seeds: readonly OpSeed[],
  setting: Setting,
): { readonly ops: readonly Op[]; readonly host: Host } {
  let host: Host = { netns: {}, kernel: setting.kernel };
  const ops: Op[] = [];
  const run = (op: Op): void => {
    ops.push(op);
    const outcome = applyOp(host, op);
    if (outcome.ok) host = outcome.host;
  };
  for (const op of universeOps(universe, setting.pins)) run(op);
  for (const seed of seeds) run(resolveOp(host, universe, seed, setting));
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
