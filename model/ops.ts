/** The table of all operation kinds, and what can be asked of an operation without knowing its kind. */
import { withOwnNames } from './altname.ts';
import { type Host, findNetns } from './host.ts';
import { type Key, type Op, type OpKind, type OpName, type Outcome, refuse } from './op.ts';
import { addressAdd } from './ops/address-add.ts';
import { addressAnnounce } from './ops/address-announce.ts';
import { addressDel } from './ops/address-del.ts';
import { altnameAdd } from './ops/altname-add.ts';
import { altnameDel } from './ops/altname-del.ts';
import { conntrackFlush } from './ops/conntrack-flush.ts';
import { fdbAdd } from './ops/fdb-add.ts';
import { fdbDel } from './ops/fdb-del.ts';
import { filterAdd } from './ops/filter-add.ts';
import { filterDel } from './ops/filter-del.ts';
import { groupDel } from './ops/group-del.ts';
import { linkAdd } from './ops/link-add.ts';
import { linkDel } from './ops/link-del.ts';
import { linkMove } from './ops/link-move.ts';
import { linkRename } from './ops/link-rename.ts';
import { linkSet } from './ops/link-set.ts';
import { neighbourAdd } from './ops/neighbour-add.ts';
import { neighbourDel } from './ops/neighbour-del.ts';
import { netnsAdd } from './ops/netns-add.ts';
import { netnsDel } from './ops/netns-del.ts';
import { nftBatch } from './ops/nft-batch.ts';
import { portSet } from './ops/port-set.ts';
import { qdiscAdd } from './ops/qdisc-add.ts';
import { qdiscDel } from './ops/qdisc-del.ts';
import { remoteAdd } from './ops/remote-add.ts';
import { remoteDel } from './ops/remote-del.ts';
import { routeAdd } from './ops/route-add.ts';
import { routeDel } from './ops/route-del.ts';
import { ruleAdd } from './ops/rule-add.ts';
import { ruleDel } from './ops/rule-del.ts';
import { sysctlSet } from './ops/sysctl-set.ts';
import { vlanAdd } from './ops/vlan-add.ts';
import { vlanDel } from './ops/vlan-del.ts';

const KINDS: { readonly [K in OpName]: OpKind<K> } = {
  'netns.add': netnsAdd,
  'netns.del': netnsDel,
  'link.add': linkAdd,
  'link.del': linkDel,
  'group.del': groupDel,
  'link.set': linkSet,
  'link.rename': linkRename,
  'link.move': linkMove,
  'altname.add': altnameAdd,
  'altname.del': altnameDel,
  'port.set': portSet,
  'fdb.add': fdbAdd,
  'fdb.del': fdbDel,
  'remote.add': remoteAdd,
  'remote.del': remoteDel,
  'vlan.add': vlanAdd,
  'vlan.del': vlanDel,
  'qdisc.add': qdiscAdd,
  'qdisc.del': qdiscDel,
  'filter.add': filterAdd,
  'filter.del': filterDel,
  'address.add': addressAdd,
  'address.del': addressDel,
  'route.add': routeAdd,
  'route.del': routeDel,
  'rule.add': ruleAdd,
  'rule.del': ruleDel,
  'neighbour.add': neighbourAdd,
  'neighbour.del': neighbourDel,
  'sysctl.set': sysctlSet,
  'nft.batch': nftBatch,
  'address.announce': addressAnnounce,
  'conntrack.flush': conntrackFlush,
};

/** The kind of an operation, typed for exactly that operation: TypeScript cannot follow `KINDS[op.op](op)` by itself. */
function kindOf(op: Op): OpKind<OpName> {
  return KINDS[op.op] as OpKind<OpName>;
}

/** The host after the operation, or the errno the kernel would answer; never half of it. */
export function applyOp(host: Host, op: Op): Outcome {
  if (op.op !== 'netns.add' && !findNetns(host, op.netns))
    return refuse('ENOENT', `no netns "${op.netns}"`);
  return kindOf(op).apply(host, withOwnNames(host, op));
}

/** The lines that do the same by hand, to be typed in the operation's netns. */
export function describeOp(op: Op): readonly string[] {
  return kindOf(op).describe(op);
}

export function signOf(op: Op): '+' | '-' | '~' {
  return kindOf(op).sign(op);
}

export function readsOf(op: Op): readonly Key[] {
  return kindOf(op).reads(op);
}

export function writesOf(op: Op): readonly Key[] {
  return kindOf(op).writes(op);
}

export function removesOf(op: Op): readonly Key[] {
  return kindOf(op).removes(op);
}
