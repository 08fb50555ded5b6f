import type { Fault } from '../model/errno.ts';
import type { Host, NetnsName, SysctlKey } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { NftFamily, SetKey } from '../model/nftables.ts';
import type { Op } from '../model/op.ts';

/** The name of what bridges need for VLANs, among what a kernel may lack. */
export const BRIDGE_VLANS = 'VLAN filtering of bridges (CONFIG_BRIDGE_VLAN_FILTERING)';

/** Which part of a table to read: its chains with their rules and its sets, and of the sets these elements. */
export interface TableScope {
  readonly family: NftFamily;
  readonly table: string;
  /** Every element, or of each named set those with these keys (other sets are read without elements). */
  readonly elements: 'all' | Readonly<Record<string, readonly SetKey[]>>;
}

/** Which part of a netns to read. What is not asked for is absent from the answer, not empty in the kernel. */
export interface NetnsScope {
  /** Links with their addresses and permanent neighbours; a name that no link has is simply not there. */
  readonly links: 'all' | readonly Ifname[];
  /**
   * `all`: those of all tables, of both families, that use one of the links read.
   * `default`: the default route that packets take, with its link, which is then read too: that of IPv4, else that of IPv6.
   */
  readonly routes: 'all' | 'default' | 'none';
  /** The rules by which tables are chosen. */
  readonly policyRules?: true;
  /** A key that does not exist is simply not there. */
  readonly sysctls: readonly SysctlKey[];
  readonly nftables: 'all' | readonly TableScope[];
  /** The chains of other tables that filter what is forwarded, with their rules; nothing else of those tables. */
  readonly forwardChains?: true;
  /** The VLANs of the bridges and ports that are read, and whether bridges know any. */
  readonly vlans?: true;
  /** The forwarding databases of bridges, where all links are read. */
  readonly fdb?: true;
  /** What traffic control does to the packets of the links that are read. */
  readonly trafficControl?: true;
}

/** What to read of a machine. A netns that does not exist is absent from the answer, and so is a path to something else. */
export type Scope = Readonly<Record<NetnsName, NetnsScope>>;

/** Something that holds a network: the kernel, or a model in memory. Every call is synchronous. */
export interface Backend {
  /** Reads the state within `scope`. Throws when the kernel cannot be asked. */
  readonly observe: (scope: Scope) => Host;
  /** Carries out one operation: undefined when it is done, else why the kernel refused it. */
  readonly execute: (op: Op) => Fault | undefined;
  /** What of the kernel the operations need, and some of them only, and this one has not, by name; found out without changing anything. */
  readonly lacks: (extra?: { readonly vlans: boolean }) => readonly string[];
  /** Gives back file descriptors. Nothing may be called afterwards. */
  readonly close: () => void;
}
