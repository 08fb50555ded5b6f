/** Links by any of their names: names and alternative names share one space in a netns (K-1.2; net/core/dev.c, netdev_name_node). */
import { type Host, findNetns } from './host.ts';
import type { Ifname } from './ifname.ts';
import type { Link, LinkRef } from './link.ts';
import type { Op } from './op.ts';

/** ALTIFNAMSIZ - 1 (include/uapi/linux/if.h). */
export const ALTNAME_MAX_BYTES = 127;

/** The link that a name leads to, be it its own or an alternative one. */
export function findByAnyName(host: Host, { netns, ifname }: LinkRef): Link | undefined {
  const links = findNetns(host, netns)?.links ?? {};
  if (Object.hasOwn(links, ifname)) return links[ifname];
  return Object.values(links).find((link) => link.altnames?.includes(ifname));
}

/** A link with these alternative names, in the order in which they were added. */
export function withAltnames<T extends Link>(link: T, altnames: readonly string[]): T {
  const { altnames: _before, ...rest } = link;
  return (altnames.length === 0 ? rest : { ...rest, altnames }) as T;
}

/** The link's own name where `name` is an alternative one; any other name as it is. */
function ownName<T extends Ifname | null>(host: Host, netns: string, name: T): T {
  if (name === null) return name;
  return (findByAnyName(host, { netns, ifname: name })?.ifname as T) ?? name;
}

/** The names by which an operation calls links that are there. */
function namesIn(op: Op): readonly (Ifname | null)[] {
  if (op.op === 'link.add') {
    if (op.link.kind === 'veth') return [op.link.master];
    return 'lower' in op.link ? [op.link.lower] : [];
  }
  if (op.op === 'route.add' || op.op === 'route.del') return [op.route.device];
  if (!('ifname' in op)) return [];
  if (op.op === 'filter.add') return [op.ifname, op.redirect];
  return op.op === 'link.set' && 'master' in op.set ? [op.ifname, op.set.master] : [op.ifname];
}

/**
 * The operation with every link that it is about or leads to called by its own name, as the kernel finds it by any. The
 * name of a link that is to be made is nobody's yet, and stays.
 */
export function withOwnNames(host: Host, op: Op): Op {
  const links = findNetns(host, op.netns)?.links ?? {};
  // Nearly always so, and then nothing is copied.
  if (namesIn(op).every((name) => name === null || Object.hasOwn(links, name))) return op;
  const own = <T extends Ifname | null>(name: T): T => ownName(host, op.netns, name);
  if (op.op === 'link.add' && op.link.kind === 'veth')
    return { ...op, link: { ...op.link, master: own(op.link.master) } };
  if (op.op === 'link.add' && op.link.kind === 'macvlan')
    return { ...op, link: { ...op.link, lower: own(op.link.lower) } };
  if (op.op === 'link.add' && op.link.kind === 'vxlan')
    return { ...op, link: { ...op.link, lower: own(op.link.lower) } };
  if (op.op === 'route.add' || op.op === 'route.del')
    return { ...op, route: { ...op.route, device: own(op.route.device) } };
  if (!('ifname' in op)) return op;
  const ifname = own(op.ifname);
  if (op.op === 'filter.add') return { ...op, ifname, redirect: own(op.redirect) };
  return op.op === 'link.set' && 'master' in op.set
    ? { ...op, ifname, set: { master: own(op.set.master) } }
    : { ...op, ifname };
}
