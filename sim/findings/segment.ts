/** Segments: which links are in one piece of layer 2, so that they hear each other's ARP and ND without a router. */
import { type Host, findLink } from '../../model/host.ts';
import type { Link, LinkRef } from '../../model/link.ts';
import { pvidOf } from '../../model/vlan.ts';

/** A link where it is. */
export interface PlacedLink extends LinkRef {
  readonly link: Link;
}

export interface Segment {
  /** The links that have an IP stack of their own: all but ports, whose frames are their bridge's. */
  readonly ends: readonly PlacedLink[];
  readonly ports: readonly PlacedLink[];
  /** Is there more of it than is to be seen: a network card, a tunnel, a far end in a netns that nobody looked at, tagged frames? */
  readonly isOpen: boolean;
}

type Key = string;

function keyOf({ netns, ifname }: LinkRef): Key {
  return `${netns}\n${ifname}`;
}

/** All links of a host, in its order. */
export function allLinks(host: Host): PlacedLink[] {
  return Object.entries(host.netns).flatMap(([netns, { links }]) =>
    Object.values(links).map((link) => ({ netns, ifname: link.ifname, link })),
  );
}

/** Sets of keys that are joined one pair at a time. */
function makeSets() {
  const above = new Map<Key, Key>();
  const top = (key: Key): Key => {
    let at = key;
    for (let next = above.get(at); next !== undefined; next = above.get(at)) at = next;
    if (at !== key) above.set(key, at);
    return at;
  };
  const join = (a: Key, b: Key): void => {
    const [x, y] = [top(a), top(b)];
    if (x !== y) above.set(x, y);
  };
  return { top, join };
}

/** Where a link's frames come out on a bridge: the bridge as a whole, or the VLAN of frames without a tag; undefined: nowhere. */
function insideOf(host: Host, bridge: LinkRef, vlans: Link['port'] | 'self'): Key | undefined {
  const link = findLink(host, bridge);
  if (link?.kind !== 'bridge' || link.vlans?.filtering !== true) return keyOf(bridge);
  const own = vlans === 'self' ? link.vlans.own : vlans?.vlans;
  // Nobody looked.
  if (own === undefined) return keyOf(bridge);
  const pvid = pvidOf(own);
  return pvid === undefined ? undefined : `${keyOf(bridge)}\n${pvid}`;
}

/** Do frames with a tag pass here, of VLANs that are other segments? */
function passesTags(host: Host, { netns, link }: PlacedLink): boolean {
  const { port } = link;
  const bridge = port && findLink(host, { netns, ifname: port.master });
  if (bridge?.kind !== 'bridge' || bridge.vlans?.filtering !== true) return false;
  return (port?.vlans ?? []).some(({ untagged }) => !untagged);
}

/** What a link is joined to; null: to something that is not to be seen. */
function neighboursOf(host: Host, placed: PlacedLink): readonly (Key | null)[] {
  const { netns, link } = placed;
  const { port } = link;
  const inside = port ? insideOf(host, { netns, ifname: port.master }, port) : undefined;
  const joined: (Key | null)[] = inside === undefined ? [] : [inside];
  if (passesTags(host, placed)) joined.push(null);
  switch (link.kind) {
    case 'veth':
      joined.push(link.peer && findLink(host, link.peer) ? keyOf(link.peer) : null);
      break;
    case 'macvlan':
      joined.push(link.lower && findLink(host, link.lower) ? keyOf(link.lower) : null);
      break;
    case 'bridge': {
      const own = insideOf(host, placed, 'self');
      if (own !== undefined) joined.push(own);
      break;
    }
    case 'vxlan':
    case 'device':
      joined.push(null);
      break;
    case 'loopback':
    case 'ifb':
      break;
  }
  return joined;
}

/** The segments of a host, each link in one. */
export function segmentsOf(host: Host): Segment[] {
  const links = allLinks(host);
  const sets = makeSets();
  const open: Key[] = [];
  for (const placed of links)
    for (const other of neighboursOf(host, placed)) {
      if (other === null) open.push(keyOf(placed));
      else sets.join(keyOf(placed), other);
    }
  const isOpen = new Set(open.map(sets.top));
  const found = new Map<Key, { ends: PlacedLink[]; ports: PlacedLink[]; isOpen: boolean }>();
  for (const placed of links) {
    const key = sets.top(keyOf(placed));
    const segment = found.get(key) ?? { ends: [], ports: [], isOpen: isOpen.has(key) };
    found.set(key, segment);
    if (placed.link.port === null) segment.ends.push(placed);
    else segment.ports.push(placed);
  }
  return [...found.values()];
}
