/** Links that get another name or another netns (net/core/dev.c, netif_change_name and __dev_change_net_namespace). */
import { withFdb } from './fdb.ts';
import {
  type Host,
  type Netns,
  type NetnsName,
  getLink,
  getNetns,
  withLink,
  withNetns,
} from './host.ts';
import type { Ifname } from './ifname.ts';
import { type Link, type LinkRef, holdsIpv6 } from './link.ts';
import { forgetLink, linkDown, removeLinks } from './netdev.ts';
import { inheritSysctls, linkSysctlKey, splitLinkSysctl } from './sysctl.ts';
import { macvlansOver, retellLower, retellUppers, tellLower, uppersOf } from './upper.ts';

/** The far end of a veth, if it was looked at, knows where this end is. */
function tellPeer(host: Host, link: Link, place: LinkRef): Host {
  if (link.kind !== 'veth' || link.peer === null) return host;
  const peer = getLink(host, link.peer);
  return peer.kind === 'veth' ? withLink(host, link.peer.netns, { ...peer, peer: place }) : host;
}

/** A link of the netns after another of its links was renamed: as a port, and as one that redirects. */
function withNewName(link: Link, from: Ifname, to: Ifname): Link {
  let after = link;
  if (link.port?.master === from) after = { ...after, port: { ...link.port, master: to } };
  const { trafficControl } = link;
  if (trafficControl?.ingress?.redirect === from)
    after = {
      ...after,
      trafficControl: {
        ...trafficControl,
        ingress: { ...trafficControl.ingress, redirect: to },
      },
    };
  if (after.kind === 'bridge' && after.fdb?.entries.some(({ port }) => port === from)) {
    const entries = after.fdb.entries.map((e) => (e.port === from ? { ...e, port: to } : e));
    after = withFdb(after, { ...after.fdb, entries });
  }
  return link.ifname === from ? { ...after, ifname: to } : after;
}

function renamedSysctls(netns: Netns, from: Ifname, to: Ifname): Netns['sysctls'] {
  return Object.fromEntries(
    Object.entries(netns.sysctls).map(([key, value]) => {
      const part = splitLinkSysctl(key);
      return part?.of === from
        ? [linkSysctlKey(part.family, to, part.name, part.tree), value]
        : [key, value];
    }),
  );
}

/**
 * A link has another name, which nobody has yet: everything that hangs on it, its settings too, follows; policy rules
 * do not, which name links that need not be there (K-1.3).
 */
export function renameLink(before: Host, ref: LinkRef, to: Ifname): Host {
  const netns = getNetns(before, ref.netns);
  const from = ref.ifname;
  const links = Object.values(netns.links).map((link) => withNewName(link, from, to));
  const after = withNetns(before, ref.netns, {
    ...netns,
    links: Object.fromEntries(links.map((link) => [link.ifname, link])),
    routes: netns.routes.map((route) => (route.device === from ? { ...route, device: to } : route)),
    sysctls: renamedSysctls(netns, from, to),
  });
  const place = { netns: ref.netns, ifname: to };
  const told = retellUppers(retellLower(after, getLink(after, place), ref, place), place);
  return tellPeer(told, getLink(told, place), place);
}

/**
 * A link is in another netns, where nobody has its names: down, and without all that hung on it in the old one. It keeps
 * its names, MAC, MTU, alias, group, queue length and modes (K-2.3).
 */
export function moveLink(before: Host, ref: LinkRef, to: NetnsName): Host {
  const gone = forgetLink(linkDown(before, ref), ref, before);
  // To vxlans over it, a link that leaves their netns is gone; macvlans stay (macvlan_device_event, NETDEV_UNREGISTER).
  const macvlans = macvlansOver(before, ref);
  const tunnels = uppersOf(before, ref).filter((upper) => !macvlans.includes(upper));
  const left = removeLinks(gone, tunnels);
  const { trafficControl: _qdiscs, uppers: _uppers, ...link } = getLink(before, ref);
  const moved: Link = {
    ...link,
    up: false,
    port: null,
    ...(macvlans.length > 0 ? { uppers: macvlans } : {}),
    addresses: [],
    neighbours: [],
  };
  const netns = getNetns(left, to);
  const after = withNetns(left, to, {
    ...netns,
    links: { ...netns.links, [link.ifname]: moved },
    sysctls: inheritSysctls(netns, moved, holdsIpv6(moved) ? [4, 6] : [4]),
  });
  const place = { netns: to, ifname: link.ifname };
  return tellPeer(retellUppers(tellLower(after, place), place), moved, place);
}
