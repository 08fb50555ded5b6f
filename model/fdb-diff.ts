/** What lies between the tables of bridges and vxlans, by which they send frames, and what is wanted of them. */
import type { DesiredLink } from './desired.ts';
import { type FdbEntry, fdbOf } from './fdb.ts';
import type { BridgeLink, LinkRef, VxlanLink } from './link.ts';
import { ZERO_MAC, isUnicastMac } from './mac.ts';
import type { OpOf } from './op.ts';
import type { Remote } from './vxlan.ts';

type Wanted<K extends 'bridge' | 'vxlan'> = Extract<DesiredLink, { readonly kind: K }>;

function sameEntry(a: FdbEntry, b: FdbEntry): boolean {
  return a.mac === b.mac && a.port === b.port && a.state === b.state;
}

/** The operations that give a bridge the wanted entries. What the kernel makes of MACs by itself is no difference. */
export function diffFdb(
  { netns, ifname }: LinkRef,
  link: BridgeLink,
  { present, others }: NonNullable<Wanted<'bridge'>['fdb']>,
): (OpOf<'fdb.add'> | OpOf<'fdb.del'>)[] {
  const { entries } = fdbOf(link);
  const place = ({ port, mac }: FdbEntry) => ({
    netns,
    ifname: port ?? ifname,
    self: port === null,
    mac,
  });
  const isInTheWay = (have: FdbEntry): boolean => present.some(({ mac }) => mac === have.mac);
  return [
    ...entries
      .filter((have) => !present.some((want) => sameEntry(want, have)))
      .filter((have) => others === 'remove' || isInTheWay(have))
      .map((have) => ({ op: 'fdb.del' as const, ...place(have) })),
    ...present
      .filter((want) => !entries.some((have) => sameEntry(want, have)))
      .map((want) => ({ op: 'fdb.add' as const, ...place(want), state: want.state })),
  ];
}

function holds(remotes: readonly Remote[], { mac, ip }: Remote): boolean {
  return remotes.some((each) => each.mac === mac && each.ip === ip);
}

/** The operations that let a vxlan send where it is wanted to. */
export function diffRemotes(
  ref: LinkRef,
  { remotes: have = [] }: VxlanLink,
  { present, others }: NonNullable<Wanted<'vxlan'>['remotes']>,
): (OpOf<'remote.add'> | OpOf<'remote.del'>)[] {
  // Of one MAC there is one place, so that another is in the way of the wanted one.
  const isInTheWay = ({ mac }: Remote): boolean =>
    mac !== ZERO_MAC && isUnicastMac(mac) && present.some((each) => each.mac === mac);
  return [
    ...have
      .filter((remote) => !holds(present, remote) && (others === 'remove' || isInTheWay(remote)))
      .map((remote) => ({ op: 'remote.del' as const, ...ref, remote })),
    ...present
      .filter((remote) => !holds(have, remote))
      .map((remote) => ({ op: 'remote.add' as const, ...ref, remote, append: true })),
  ];
}
