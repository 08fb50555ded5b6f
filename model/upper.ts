/** Links that are made over others, and what those below know of them (net/core/dev.c, netdev_upper_dev_link). */
import { type Host, findLink, withLink } from './host.ts';
import type { Link, LinkRef } from './link.ts';

/** The link that one is made over; undefined where it is over none, and where nobody looked. */
export function lowerOf(link: Link): LinkRef | undefined {
  if (link.kind === 'macvlan') return link.lower ?? undefined;
  return link.kind === 'vxlan' && link.underlay !== null && link.lower !== null
    ? { netns: link.underlay, ifname: link.lower }
    : undefined;
}

/** The links that are made over one, wherever they are. */
export function uppersOf(host: Host, ref: LinkRef): readonly LinkRef[] {
  return findLink(host, ref)?.uppers ?? [];
}

/** The macvlans among them, which follow what happens to it (K-1.18; drivers/net/macvlan.c, macvlan_device_event). */
export function macvlansOver(host: Host, ref: LinkRef): LinkRef[] {
  return uppersOf(host, ref).filter((upper) => findLink(host, upper)?.kind === 'macvlan');
}

function isRef(a: LinkRef, b: LinkRef): boolean {
  return a.netns === b.netns && a.ifname === b.ifname;
}

function withUppers(host: Host, ref: LinkRef, uppers: readonly LinkRef[]): Host {
  const link = findLink(host, ref);
  if (!link) return host;
  const { uppers: _before, ...rest } = link;
  return withLink(host, ref.netns, uppers.length === 0 ? rest : { ...rest, uppers });
}

/** The link below one that has come, if it was looked at, knows of it. */
export function tellLower(host: Host, upper: LinkRef): Host {
  const link = findLink(host, upper);
  const lower = link && lowerOf(link);
  return lower ? withUppers(host, lower, [...uppersOf(host, lower), { ...upper }]) : host;
}

/** The link below `link`, which was at `upper`, knows that it is there no longer, but at `place` if anywhere. */
export function retellLower(host: Host, link: Link, upper: LinkRef, place?: LinkRef): Host {
  const lower = lowerOf(link);
  if (!lower) return host;
  const uppers = uppersOf(host, lower).flatMap((each) =>
    isRef(each, upper) ? (place ? [place] : []) : [each],
  );
  return withUppers(host, lower, uppers);
}

/** The links over one that is now at `lower` know where that is; to a vxlan it never leaves its netns. */
export function retellUppers(host: Host, lower: LinkRef): Host {
  return uppersOf(host, lower).reduce((state, upper) => {
    const link = findLink(state, upper);
    if (link?.kind === 'macvlan') return withLink(state, upper.netns, { ...link, lower });
    return link?.kind === 'vxlan'
      ? withLink(state, upper.netns, { ...link, lower: lower.ifname })
      : state;
  }, host);
}

/** A host as it was read link by link: those below know of those above. */
export function tellLowers(host: Host): Host {
  const all = Object.entries(host.netns).flatMap(([netns, { links }]) =>
    Object.values(links).flatMap((link) => (lowerOf(link) ? [{ netns, ifname: link.ifname }] : [])),
  );
  return all.reduce(tellLower, host);
}
