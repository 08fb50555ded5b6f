/** Operations on macvlans and on what those are over. */
import { type Host, type NetnsName, findLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import type { Link } from '../../model/link.ts';
import { type Mac, parseMac } from '../../model/mac.ts';
import { MACVLAN_MODES } from '../../model/macvlan.ts';
import type { Op } from '../../model/op.ts';
import type { LinkAttribute } from '../../model/ops/link-set.ts';
import type { Draw } from './draw.ts';
import { MACS, MACVLANS, freeName, linksOf, someHolder, someLink } from './names.ts';

/** No other link's, so that macvlans that have them can always go up. */
const OWN_MACS = ['02:00:00:00:00:d0', '02:00:00:00:00:d1'].map(parseMac);
const MTUS = [1500, 1400, 9000, 1280, 1279];
const MTU_MISSES = [67, 65_536, 65_535];

/** Its own, whatever its neighbours are called. */
function ownMac(ifname: Ifname): Mac {
  return OWN_MACS[Math.max(MACVLANS.indexOf(ifname), 0)] as Mac;
}

/** Can a macvlan be over it that a plan can lead to? One over another would have to be made anew after it. */
function mayCarry(link: Link): boolean {
  return (
    link.port === null && (link.kind === 'veth' || link.kind === 'bridge' || link.kind === 'ifb')
  );
}

function mtuOver(lower: Link | undefined, draw: Draw): number {
  if (draw.oddIn(6)) return draw.of([...MTUS, ...MTU_MISSES]);
  const fitting = MTUS.filter((mtuBytes) => mtuBytes <= (lower?.mtuBytes ?? 1500));
  return draw.of(fitting.length > 0 ? fitting : [1279]);
}

/** A macvlan over a link; now and then over one that can have none. */
export function macvlanAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const lowers = linksOf(host, netns)
    .filter(mayCarry)
    .map(({ ifname }) => ifname);
  const lower =
    lowers.length === 0 || draw.oddIn(5) ? someLink(host, netns, draw) : draw.of(lowers);
  const ifname = freeName(host, netns, draw, MACVLANS);
  return {
    op: 'link.add',
    netns,
    link: {
      kind: 'macvlan',
      ifname,
      mac: draw.oddIn(3) ? draw.of(MACS) : ownMac(ifname),
      mtuBytes: mtuOver(findLink(host, { netns, ifname: lower }), draw),
      up: !draw.oneIn(3),
      mode: draw.of(MACVLAN_MODES),
      lower,
    },
  };
}

/** One attribute of a macvlan, or of a link that one is over. */
export function macvlanSet(netns: NetnsName, host: Host, draw: Draw): Op {
  const ifname = someHolder(
    host,
    netns,
    draw,
    (link) => link.kind === 'macvlan' || link.uppers !== undefined,
  );
  const link = findLink(host, { netns, ifname });
  const isMacvlan = link?.kind === 'macvlan';
  const macs = isMacvlan ? [ownMac(ifname), ...(draw.oddIn(2) ? MACS : [])] : MACS;
  const sets: readonly (() => LinkAttribute)[] = [
    () => ({ up: draw.oneIn(2) }),
    () => ({ up: true }),
    // A loopback would keep a MAC that nobody sees.
    () => (ifname === 'lo' ? { up: true } : { mac: draw.of(macs) }),
    () => ({
      mtuBytes: isMacvlan && link.lower ? mtuOver(findLink(host, link.lower), draw) : draw.of(MTUS),
    }),
  ];
  return { op: 'link.set', netns, ifname, set: draw.of(sets)() };
}
