/** Routes and settings that let no packet on. */
import { connectedPrefix } from '../../model/connected.ts';
import { type Host, type NetnsName, findNetns } from '../../model/host.ts';
import { type Ip, familyOf } from '../../model/ip.ts';
import type { LinkRef } from '../../model/link.ts';
import { prefixContains } from '../../model/prefix.ts';
import { linkSysctl } from '../../model/sysctl.ts';
import { linkDown, sysctl, within } from '../cause.ts';
import { formatRoute } from '../route.ts';
import type { Blame, Dropped } from './blame.ts';

/** Which setting keeps a netns from passing packets on that came in by a link. */
export function ofForwarding(host: Host, { netns, link }: Dropped, ip: Ip): Blame {
  const state = findNetns(host, netns);
  const text = `is 0, so that nothing is passed on to ${ip}`;
  if (familyOf(ip) === 6) return sysctl(netns, 'net/ipv6/conf/all/forwarding', '1', text);
  const isOn = state?.sysctls['net/ipv4/ip_forward'] === '1';
  return isOn && link !== null
    ? sysctl(netns, `net/ipv4/conf/${link}/forwarding`, '1', text)
    : sysctl(netns, 'net/ipv4/ip_forward', '1', text);
}

/** The reverse path filter that wants a packet from elsewhere. */
export function ofReversePath(host: Host, { netns, link, text }: Dropped): Blame {
  const state = findNetns(host, netns);
  const all = state?.sysctls['net/ipv4/conf/all/rp_filter'] ?? '0';
  const own = state && link !== null ? linkSysctl(state, 4, link, 'rp_filter') : '0';
  const of = Number(own) >= Number(all) ? link : 'all';
  return sysctl(netns, `net/ipv4/conf/${of}/rp_filter`, '2', text.replace(/^rp_filter /, ''));
}

/** A link that is down with an address in reach of the destination, or else any with an address: with it its routes have gone. */
function findFallen(host: Host, netns: NetnsName, destination: Ip): LinkRef | undefined {
  const fallen = Object.values(findNetns(host, netns)?.links ?? {}).filter(
    ({ up, kind, addresses }) => !up && kind !== 'loopback' && addresses.length > 0,
  );
  const near = fallen.find(({ addresses }) =>
    addresses.some((address) => prefixContains(connectedPrefix(address), destination)),
  );
  const link = near ?? fallen[0];
  return link && { netns, ifname: link.ifname };
}

/** The route that there is and ends packets, or that there is none. */
export function ofRouting(host: Host, { netns, text, lookedUp }: Dropped): Blame {
  const destination = lookedUp?.kind === 'route' ? lookedUp.destination : undefined;
  const fallen = destination === undefined ? undefined : findFallen(host, netns, destination);
  if (fallen && lookedUp?.kind === 'route' && !lookedUp.found) return linkDown(fallen);
  if (lookedUp?.kind === 'route' && lookedUp.found) {
    const words = formatRoute(lookedUp.found);
    return {
      object: `route ${words}`,
      text: `ends packets to ${destination}`,
      mend: [within(netns, `ip route del ${words}`)],
    };
  }
  const family = destination !== undefined && familyOf(destination) === 6 ? ' -6' : '';
  const isMissing = text.includes('no route to');
  return {
    object: isMissing ? `route to ${destination}` : `routes to ${destination}`,
    text: isMissing ? 'is missing' : text,
    mend: isMissing ? [within(netns, `ip${family} route add ${destination} via GATEWAY`)] : [],
  };
}
