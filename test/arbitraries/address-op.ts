/** Operations on addresses and neighbours. */
import { type Address, makeAddress } from '../../model/address.ts';
import { isKernelAddress } from '../../model/desired.ts';
import type { Host, NetnsName } from '../../model/host.ts';
import { findLink, findNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { type Ipv4, familyOf, parseIp } from '../../model/ip.ts';
import type { Link } from '../../model/link.ts';
import type { EffectOp, Op } from '../../model/op.ts';
import { type PrefixedIp, parsePrefixedIp, prefixOf } from '../../model/prefix.ts';
import type { Draw } from './draw.ts';
import { GATEWAYS, MACS, VETHS, linksOf, someHolder, someLink } from './names.ts';

const ADDRESSES = [
  '10.0.0.1/24',
  '10.0.0.2/24',
  '10.0.0.3/24',
  '10.0.0.1/16',
  '10.0.1.2/31',
  '10.9.9.9/32',
  '192.168.5.1/30',
  'fd00::1/64',
  'fd00::2/64',
  'fd01::1/128',
  'fd02::7/112',
].map(parsePrefixedIp);

/** Ends of the ranges, and addresses that mean something else. */
const ODD_ADDRESSES = [
  '10.0.0.0/24',
  '10.0.0.255/24',
  '10.0.0.1/0',
  '10.0.0.1/32',
  '127.0.0.5/8',
  '224.0.0.1/24',
  '0.0.0.5/24',
  '255.255.255.255/32',
  'fd00::1/128',
  'fd00::/64',
  'fd00::1/127',
  'fd03::1/0',
  'fe80::5/64',
].map(parsePrefixedIp);

/** Refused, but on a link that is up not without a trace, which the model does not know: the multicast route comes before the look at the address. */
const REFUSED = ['ff02::5/64', '::/128', '::1/128'].map(parsePrefixedIp);

const PEERS: readonly (readonly [string, string])[] = [
  ['10.0.0.1/32', '10.0.0.9'],
  ['10.0.0.1/24', '10.5.0.7'],
  ['10.0.0.2/32', '10.0.0.9'],
  ['10.0.0.2/24', '10.0.0.7'],
  ['fd00::1/128', 'fd00::9'],
  ['fd00::1/64', 'fd05::9'],
];

/** Another address of the same network: in IPv4 one of the two is secondary. */
function isBeside(a: Pick<Address, 'ip' | 'prefixLength'>, b: PrefixedIp): boolean {
  return (
    a.ip !== b.ip &&
    a.prefixLength === b.prefixLength &&
    prefixOf(a.ip, a.prefixLength) === prefixOf(b.ip, b.prefixLength)
  );
}

function someAddress(draw: Draw, link: Link | undefined): Address {
  if (draw.oddIn(12) && (!link?.up || draw.oddIn(6)) && link?.kind !== 'loopback')
    return makeAddress(draw.of(REFUSED));
  if (draw.oddIn(8)) {
    const [text, peer] = draw.of(PEERS);
    return makeAddress({ ...parsePrefixedIp(text), peer: parseIp(peer) });
  }
  const near = ADDRESSES.filter((each) => link?.addresses.some((a) => isBeside(a, each)));
  const choice =
    near.length > 0 && draw.oneIn(3)
      ? draw.of(near)
      : draw.oddIn(8)
        ? draw.of(ODD_ADDRESSES)
        : draw.of(ADDRESSES);
  // An IPv6 address without a route keeps that of another alive when it goes (K-4.5): no plan would take it away.
  const isBare = familyOf(choice.ip) === 6 ? draw.oddIn(7) : draw.oneIn(7);
  const address = makeAddress({ ...choice, noPrefixRoute: isBare });
  // A link-local one with DAD would look as if the kernel had made it.
  const isPlain = familyOf(address.ip) === 6 && !address.ip.startsWith('fe80:');
  if (isPlain && draw.oddIn(6)) return { ...address, noDad: false };
  // The kernel takes the scope of an IPv6 address from the address, and knows no broadcast of it.
  if (familyOf(address.ip) === 6) return address;
  const scope = draw.oddIn(10) ? draw.of(['link', 'host'] as const) : 'global';
  if (!draw.oddIn(8)) return { ...address, scope };
  return {
    ...address,
    scope,
    broadcast: draw.of([null, '10.0.0.127', '255.255.255.255']) as Ipv4 | null,
  };
}

function hasAddress(link: Link): boolean {
  return link.addresses.length > 0;
}

function hasNeighbour(link: Link): boolean {
  return link.neighbours.length > 0;
}

/** An address for a link. */
export function addressAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const ifname = someLink(host, netns, draw);
  const link = findLink(host, { netns, ifname });
  return { op: 'address.add', netns, ifname, address: someAddress(draw, link) };
}

/**
 * The addresses of a link that programs may remove: without the one that the kernel made itself. It makes that anew when
 * IPv6 begins, not whenever carrier comes back, and whether IPv6 has begun (IF_READY) is not part of the model.
 */
function removable(link: Link): readonly Address[] {
  return link.addresses.filter((a) => !isKernelAddress(link, a));
}

function isRemovable(link: Link): boolean {
  return removable(link).length > 0;
}

/** An address that the link has, has with another length, or has not. */
export function addressDel(netns: NetnsName, host: Host, draw: Draw): Op {
  // Where there is none to remove, one is most often more use.
  if (!linksOf(host, netns).some(isRemovable) && !draw.oneIn(4))
    return addressAdd(netns, host, draw);
  const ifname = someHolder(host, netns, draw, isRemovable);
  const link = findLink(host, { netns, ifname });
  const held = link ? removable(link) : [];
  if (held.length === 0 || draw.oneIn(8))
    return { op: 'address.del', netns, ifname, address: someAddress(draw, undefined) };
  // One that others follow takes them along, or makes room for one of them.
  const leading = held.filter(
    (a) => !a.secondary && held.some((b) => b.secondary && isBeside(a, b)),
  );
  const address = draw.of(leading.length > 0 && draw.oneIn(2) ? leading : held);
  return {
    op: 'address.del',
    netns,
    ifname,
    address: draw.oneIn(8) ? { ...address, prefixLength: 20 } : address,
  };
}

const NEIGHBOURS = GATEWAYS.filter((_, i) => i % 3 === 0);

/** A link that has neighbours, seldom the loopback: what that is told about IPv4 it keeps under 0.0.0.0, which the model does not know. */
function someEthernet(host: Host, netns: NetnsName, draw: Draw): Ifname {
  const ifname = someLink(host, netns, draw);
  return ifname === 'lo' && !draw.oddIn(4) ? draw.of(VETHS) : ifname;
}

/** A permanent neighbour. */
export function neighbourAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  return {
    op: 'neighbour.add',
    netns,
    ifname: someEthernet(host, netns, draw),
    neighbour: { ip: draw.of(NEIGHBOURS), mac: draw.of(MACS) },
  };
}

/** A neighbour goes, often one that is there. */
export function neighbourDel(netns: NetnsName, host: Host, draw: Draw): Op {
  if (!linksOf(host, netns).some(hasNeighbour) && !draw.oneIn(4))
    return neighbourAdd(netns, host, draw);
  const ifname = someHolder(host, netns, draw, hasNeighbour);
  const held = findNetns(host, netns)?.links[ifname]?.neighbours ?? [];
  const ip =
    held.length > 0 && !draw.oneIn(4) ? draw.of(held.map((n) => n.ip)) : draw.of(NEIGHBOURS);
  return { op: 'neighbour.del', netns, ifname, ip };
}

function canTell(link: Link): boolean {
  return link.up && link.mac !== null && hasAddress(link);
}

/** News of an address that the link has, or has not. */
export function addressAnnounce(netns: NetnsName, host: Host, draw: Draw): EffectOp {
  const ifname = someHolder(host, netns, draw, draw.oneIn(4) ? hasAddress : canTell);
  const held = findLink(host, { netns, ifname })?.addresses ?? [];
  const { ip } = held.length === 0 || draw.oneIn(6) ? someAddress(draw, undefined) : draw.of(held);
  return { op: 'address.announce', netns, ifname, ip, mac: draw.of(MACS) };
}

/** The same, where there is something to tell; else most often an address. */
export function toldAddress(netns: NetnsName, host: Host, draw: Draw): Op {
  return linksOf(host, netns).some(canTell) || draw.oneIn(4)
    ? addressAnnounce(netns, host, draw)
    : addressAdd(netns, host, draw);
}

/** Connections of an address or to a port are forgotten: programs have none, so all there is to see is that nothing else goes. */
export function conntrackFlush(netns: NetnsName, draw: Draw): EffectOp {
  const ports = [{ protocol: draw.of(['tcp', 'udp'] as const), port: draw.of([53, 80]) }];
  return draw.oneIn(3)
    ? { op: 'conntrack.flush', netns, family: draw.of([4, 6]), ports }
    : { op: 'conntrack.flush', netns, ip: someAddress(draw, undefined).ip };
}
