/** Routes by where they lead: of the thousands of a router a few cover an address, and a lookup need see no others. */
import type { Netns } from '../model/host.ts';
import { type Family, type Ip, familyOf } from '../model/ip.ts';
import { type Prefix, prefixLengthOf, prefixOf } from '../model/prefix.ts';
import type { Route } from '../model/route.ts';
import { oncePer } from './remembered.ts';

interface RoutesByPrefix {
  /** Those that there are, of each family. */
  readonly lengths: Readonly<Record<Family, ReadonlySet<number>>>;
  readonly by: ReadonlyMap<Prefix, readonly Route[]>;
}

const byPrefix = oncePer((routes: readonly Route[]): RoutesByPrefix => {
  const lengths = { 4: new Set<number>(), 6: new Set<number>() };
  for (const { destination } of routes)
    lengths[familyOf(destination)].add(prefixLengthOf(destination));
  return { lengths, by: Map.groupBy(routes, ({ destination }) => destination) };
});

/** Fewer are looked through sooner than put in order. */
const FEW = 10;

/** The netns with only those of its routes that cover an address, or with all where they are few: to look that up there is the same. */
export function coveringRoutes<Of extends Pick<Netns, 'routes'>>(netns: Of, ip: Ip): Of {
  if (netns.routes.length < FEW) return netns;
  const { lengths, by } = byPrefix(netns.routes);
  const routes: Route[] = [];
  for (const length of lengths[familyOf(ip)]) {
    const covering = by.get(prefixOf(ip, length));
    if (covering) routes.push(...covering);
  }
  return { ...netns, routes };
}
