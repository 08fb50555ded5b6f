/** The small pools that programs take their values from: collisions are the point. */
import type { Host, NetnsName } from '../../model/host.ts';
import { findNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import type { Link } from '../../model/link.ts';
import { parseMac } from '../../model/mac.ts';
import type { Draw } from './draw.ts';

export const BRIDGES = ['br0', 'br1'] as Ifname[];
export const VETHS = ['v0', 'v1', 'v2', 'v3'] as Ifname[];
export const IFBS = ['i0', 'i1'] as Ifname[];
export const VXLANS = ['x0', 'x1'] as Ifname[];
export const MACVLANS = ['m0', 'm1'] as Ifname[];
/** Other names of links, short enough to address them by. */
export const ALTNAMES = ['alt0', 'alt1'];
export const MACS = [
  '02:00:00:00:00:01',
  '02:00:00:00:00:02',
  '02:00:00:00:00:0a',
  '02:00:00:00:0b:00',
].map(parseMac);

/** Next hops and neighbours, most of them in the prefix of one of the addresses that links get. */
export const GATEWAYS = [
  '10.0.0.254',
  '10.0.0.2',
  '10.0.1.3',
  '10.77.0.1',
  '192.168.5.2',
  '10.0.0.9',
  'fd00::fe',
  'fd00::2',
  'fd77::1',
  'fd02::8',
  'fd00::9',
].map(parseIp);

/** The links of a netns but for its loopback. */
export function linksOf(host: Host, netns: NetnsName): Link[] {
  return Object.values(findNetns(host, netns)?.links ?? {}).filter(
    (link) => link.kind !== 'loopback',
  );
}

/** The name of a link that is there, or now and then of one that may not be, or of the loopback. */
export function someLink(host: Host, netns: NetnsName, draw: Draw): Ifname {
  const names = linksOf(host, netns).map((link) => link.ifname);
  if (draw.oddIn(12)) return 'lo' as Ifname;
  return names.length === 0 || draw.oneIn(8)
    ? draw.of([...VETHS, ...BRIDGES, ...(ALTNAMES as Ifname[])])
    : draw.of(names);
}

/** The name of a link that holds something of a kind, where there is one; else of any. */
export function someHolder(
  host: Host,
  netns: NetnsName,
  draw: Draw,
  holds: (link: Link) => boolean,
): Ifname {
  const holders = linksOf(host, netns)
    .filter(holds)
    .map((link) => link.ifname);
  return holders.length > 0 && !draw.oneIn(5) ? draw.of(holders) : someLink(host, netns, draw);
}

/** The name of a bridge that is there, where there is one; now and then of one that may not be. */
export function someBridge(host: Host, netns: NetnsName, draw: Draw): Ifname {
  const bridges = linksOf(host, netns)
    .filter((link) => link.kind === 'bridge')
    .map((link) => link.ifname);
  return bridges.length > 0 && !draw.oneIn(6) ? draw.of(bridges) : draw.of(BRIDGES);
}

/** One of the names, most often one that no link of the netns has. */
export function freeName(
  host: Host,
  netns: NetnsName,
  draw: Draw,
  names: readonly Ifname[],
): Ifname {
  const links = findNetns(host, netns)?.links ?? {};
  const free = names.filter((name) => !Object.hasOwn(links, name));
  return free.length > 0 && !draw.oneIn(6) ? draw.of(free) : draw.of(names);
}
