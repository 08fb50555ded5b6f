import type { Fault } from './errno.ts';
import type { Host } from './host.ts';
import type { AddressAdd } from './ops/address-add.ts';
import type { AddressAnnounce } from './ops/address-announce.ts';
import type { AddressDel } from './ops/address-del.ts';
import type { AltnameAdd } from './ops/altname-add.ts';
import type { AltnameDel } from './ops/altname-del.ts';
import type { ConntrackFlush } from './ops/conntrack-flush.ts';
import type { FdbAdd } from './ops/fdb-add.ts';
import type { FdbDel } from './ops/fdb-del.ts';
import type { FilterAdd } from './ops/filter-add.ts';
import type { FilterDel } from './ops/filter-del.ts';
import type { GroupDel } from './ops/group-del.ts';
import type { LinkAdd } from './ops/link-add.ts';
import type { LinkDel } from './ops/link-del.ts';
import type { LinkMove } from './ops/link-move.ts';
import type { LinkRename } from './ops/link-rename.ts';
import type { LinkSet } from './ops/link-set.ts';
import type { NeighbourAdd } from './ops/neighbour-add.ts';
import type { NeighbourDel } from './ops/neighbour-del.ts';
import type { NetnsAdd } from './ops/netns-add.ts';
import type { NetnsDel } from './ops/netns-del.ts';
import type { NftBatch } from './ops/nft-batch.ts';
import type { PortSet } from './ops/port-set.ts';
import type { QdiscAdd } from './ops/qdisc-add.ts';
import type { QdiscDel } from './ops/qdisc-del.ts';
import type { RemoteAdd } from './ops/remote-add.ts';
import type { RemoteDel } from './ops/remote-del.ts';
import type { RouteAdd } from './ops/route-add.ts';
import type { RouteDel } from './ops/route-del.ts';
import type { RuleAdd } from './ops/rule-add.ts';
import type { RuleDel } from './ops/rule-del.ts';
import type { SysctlSet } from './ops/sysctl-set.ts';
import type { VlanAdd } from './ops/vlan-add.ts';
import type { VlanDel } from './ops/vlan-del.ts';

/** What changes the state of a host, which can be observed, wanted and taken back: one kernel message, file write or atomic batch each. */
interface StateOpMap {
  'netns.add': NetnsAdd;
  'netns.del': NetnsDel;
  'link.add': LinkAdd;
  'link.del': LinkDel;
  'group.del': GroupDel;
  'link.set': LinkSet;
  'link.rename': LinkRename;
  'link.move': LinkMove;
  'altname.add': AltnameAdd;
  'altname.del': AltnameDel;
  'port.set': PortSet;
  'fdb.add': FdbAdd;
  'fdb.del': FdbDel;
  'remote.add': RemoteAdd;
  'remote.del': RemoteDel;
  'vlan.add': VlanAdd;
  'vlan.del': VlanDel;
  'qdisc.add': QdiscAdd;
  'qdisc.del': QdiscDel;
  'filter.add': FilterAdd;
  'filter.del': FilterDel;
  'address.add': AddressAdd;
  'address.del': AddressDel;
  'route.add': RouteAdd;
  'route.del': RouteDel;
  'rule.add': RuleAdd;
  'rule.del': RuleDel;
  'neighbour.add': NeighbourAdd;
  'neighbour.del': NeighbourDel;
  'sysctl.set': SysctlSet;
  'nft.batch': NftBatch;
}

/**
 * What is done once and leaves nothing that is observed: the model's host is the same after it. So nobody can want it
 * of a host, no difference asks for it, and nothing takes it back; whoever makes a plan appends it (`withEffects`).
 */
interface EffectOpMap {
  'address.announce': AddressAnnounce;
  'conntrack.flush': ConntrackFlush;
}

/** Every kind of operation. */
export interface OpMap extends StateOpMap, EffectOpMap {}

export type OpName = keyof OpMap;

/** One operation: its kind under `op`, the netns it happens in, and what that kind needs. */
export type OpOf<K extends OpName> = { readonly op: K; readonly netns: string } & OpMap[K];
export type Op = { [K in OpName]: OpOf<K> }[OpName];
/** An operation that changes state. */
export type StateOp = { [K in keyof StateOpMap]: OpOf<K> }[keyof StateOpMap];
/** An operation that is an effect. */
export type EffectOp = { [K in keyof EffectOpMap]: OpOf<K> }[keyof EffectOpMap];

/** What the kernel makes of an operation: the host after it, or its refusal, which changes nothing. */
export type Outcome =
  | { readonly ok: true; readonly host: Host }
  | { readonly ok: false; readonly fault: Fault };

/** Something an operation depends on or brings about, `KIND NETNS/NAME`. */
export type Key = string;

/** What every kind of operation answers. */
export interface OpKind<K extends OpName> {
  /** The host after it, or the errno that the kernel would answer. */
  readonly apply: (host: Host, op: OpOf<K>) => Outcome;
  /** The lines a person would type in the operation's netns: iproute2, nft or sysctl. */
  readonly describe: (op: OpOf<K>) => readonly string[];
  /** Does it add, take away or change something? */
  readonly sign: (op: OpOf<K>) => '+' | '-' | '~';
  /** Keys that an operation before it may have to write. */
  readonly reads: (op: OpOf<K>) => readonly Key[];
  /** Keys that later operations may depend on. */
  readonly writes: (op: OpOf<K>) => readonly Key[];
  /** Keys that end with it. */
  readonly removes: (op: OpOf<K>) => readonly Key[];
}

export function done(host: Host): Outcome {
  return { ok: true, host };
}

export function refuse(errno: Fault['errno'], text = ''): Outcome {
  return { ok: false, fault: { errno, text } };
}
