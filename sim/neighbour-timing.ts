/** How long a link is certain of its neighbours, by its settings (K-7.10; net/ipv4/neigh, net/ipv6/neigh; arp_tbl and nd_tbl have the defaults). */
import type { Netns } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import { type Family, type Ip, familyOf } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import { linkSysctlKey } from '../model/sysctl.ts';
import { chance } from './chance.ts';
import type { NeighbourTiming } from './neighbour-state.ts';
import { oncePerWord } from './remembered.ts';
import { numberOf } from './sysctls.ts';

/** What a link has where nobody set anything: of `base_reachable_time_ms` and `retrans_time_ms` milliseconds, of `delay_first_probe_time` seconds, of `locktime` hundredths of one. */
const DEFAULTS = {
  base_reachable_time_ms: 30_000,
  delay_first_probe_time: 5,
  retrans_time_ms: 1000,
  ucast_solicit: 3,
  mcast_solicit: 3,
  mcast_resolicit: 0,
  locktime: 100,
} as const;

type Name = keyof typeof DEFAULTS;

/** How often chance decides anew how long a neighbour is reachable (neigh_periodic_work). */
const CHANCE_LASTS_MS = 300_000;

function settingsIn({ sysctls }: Netns, ifname: Ifname, family: Family): NeighbourTiming {
  const setting = (name: Name): number => {
    const own =
      sysctls[linkSysctlKey(family, ifname, name, 'neigh')] ??
      sysctls[linkSysctlKey(family, 'default', name, 'neigh')];
    return numberOf(own) ?? DEFAULTS[name];
  };
  return {
    reachableMs: setting('base_reachable_time_ms'),
    delayMs: setting('delay_first_probe_time') * 1000,
    retransMs: Math.max(setting('retrans_time_ms'), 10),
    unicastProbes: setting('ucast_solicit'),
    multicastProbes: setting('mcast_solicit'),
    repeatedMulticastProbes: setting('mcast_resolicit'),
    locktimeMs: setting('locktime') * 10,
  };
}

/** What is set on a link, for each family. */
const settingsOf = oncePerWord((netns: Netns, ifname: Ifname) => ({
  4: settingsIn(netns, ifname, 4),
  6: settingsIn(netns, ifname, 6),
}));

/** For how long and how often, of a neighbour on a link. By chance a neighbour is reachable for half to three halves of what is set, with `seed` null for just that (neigh_rand_reach_time). */
export function neighbourTiming(
  netns: Netns,
  at: LinkRef,
  ip: Ip,
  nowMs: number,
  seed: number | null,
): NeighbourTiming {
  const family = familyOf(ip);
  const settings = settingsOf(netns, at.ifname)[family];
  const since = Math.floor(nowMs / CHANCE_LASTS_MS);
  const share = 0.5 + chance(seed, 'reachable', at.netns, at.ifname, family, since);
  return { ...settings, reachableMs: Math.floor(settings.reachableMs * share) };
}
