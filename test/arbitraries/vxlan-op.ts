/** Operations on vxlans and on where they send. */
import { type Host, type NetnsName, findLink } from '../../model/host.ts';
import { type Ip, parseIp } from '../../model/ip.ts';
import { type Mac, ZERO_MAC, parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import { tunnelFamily } from '../../model/vxlan.ts';
import type { Draw } from './draw.ts';
import { MACS, VXLANS, freeName, linksOf, someHolder } from './names.ts';

/** Few, so that networks meet. */
const VNIS = [7, 8];
const UDP_PORTS = [4789, 4790];
const LOCALS = [null, null, parseIp('10.0.0.1'), parseIp('fd00::1')];
const MTUS = [1500, 1400, 9000, 1280];
const MTU_MISSES = [67, 65_536, 65_535, 1279];

const REMOTES: Readonly<Record<4 | 6, readonly Ip[]>> = {
  4: ['192.0.2.1', '192.0.2.2'].map(parseIp),
  6: ['2001:db8::1', '2001:db8::2'].map(parseIp),
};
const REMOTE_MACS: readonly Mac[] = [
  ZERO_MAC,
  ...['02:00:00:00:00:e0', '02:00:00:00:00:e1', '01:00:5e:00:00:e2'].map(parseMac),
];

/** A vxlan over a link, or over none. */
export function vxlanAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  // One over another would have to be made anew after it.
  const lowers = linksOf(host, netns)
    .filter(({ kind }) => kind === 'veth' || kind === 'bridge')
    .map(({ ifname }) => ifname);
  const below = draw.oddIn(6) ? VXLANS : lowers;
  return {
    op: 'link.add',
    netns,
    link: {
      kind: 'vxlan',
      ifname: freeName(host, netns, draw, VXLANS),
      mac: draw.of(MACS),
      mtuBytes: draw.oddIn(6) ? draw.of(MTU_MISSES) : draw.of(MTUS),
      up: !draw.oneIn(3),
      vni: draw.of(VNIS),
      udpPort: draw.of(UDP_PORTS),
      local: draw.of(LOCALS),
      lower: below.length === 0 || draw.oneIn(3) ? null : draw.of(below),
      learning: draw.oneIn(2),
    },
  };
}

/** A place of a vxlan; now and then in a message to another link, or of the other family. */
export function remoteAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const ifname = someHolder(host, netns, draw, ({ kind }) => kind === 'vxlan');
  const link = findLink(host, { netns, ifname });
  const family = link?.kind === 'vxlan' ? tunnelFamily(link) : 4;
  const ip = draw.of(REMOTES[draw.oneIn(12) ? (family === 4 ? 6 : 4) : family]);
  return {
    op: 'remote.add',
    netns,
    ifname,
    remote: { mac: draw.of(REMOTE_MACS), ip },
    append: draw.oneIn(2),
  };
}

/** A place that a vxlan has, where one has any; now and then another. */
export function remoteDel(netns: NetnsName, host: Host, draw: Draw): Op {
  const told = linksOf(host, netns).flatMap((link) =>
    link.kind === 'vxlan'
      ? (link.remotes ?? []).map((remote) => ({ ifname: link.ifname, remote }))
      : [],
  );
  if (told.length > 0 && !draw.oneIn(4)) return { op: 'remote.del', netns, ...draw.of(told) };
  const ifname = someHolder(host, netns, draw, ({ kind }) => kind === 'vxlan');
  const remote = { mac: draw.of(REMOTE_MACS), ip: draw.of(REMOTES[4]) };
  return { op: 'remote.del', netns, ifname, remote };
}
