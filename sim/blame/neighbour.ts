/** Neighbours that do not answer, and MAC addresses that are said to be where they are not. */
import { hasCarrier } from '../../model/carrier.ts';
import { type Host, type NetnsName, findLink, findNetns } from '../../model/host.ts';
import { type Ip, familyOf } from '../../model/ip.ts';
import type { LinkRef } from '../../model/link.ts';
import type { Mac } from '../../model/mac.ts';
import { linkSysctl } from '../../model/sysctl.ts';
import { sysctl, within } from '../cause.ts';
import { routeInput } from '../route.ts';
import { strayEntry } from '../stray-entry.ts';
import type { Blame, BlameDrop, Dropped } from './blame.ts';
import { ofPort, ofSilence } from './link.ts';

/** The bridge that a link's frames come to: itself, or that of the port at its far end. */
function segmentOf(host: Host, at: LinkRef): LinkRef | undefined {
  const link = findLink(host, at);
  if (link?.kind === 'bridge') return at;
  const port = link?.kind === 'veth' && link.peer ? link.peer : undefined;
  const master = port && findLink(host, port)?.port?.master;
  return port && master !== undefined ? { netns: port.netns, ifname: master } : undefined;
}

/** The netns that a link's frames can get to at once: its own, that of its far end, that of its bridge. */
function surroundings(host: Host, at: LinkRef): (NetnsName | undefined)[] {
  const link = findLink(host, at);
  const peer = link?.kind === 'veth' ? link.peer : null;
  return [at.netns, peer?.netns, segmentOf(host, at)?.netns];
}

/** Whoever has the address that nobody answers for, wherever that is, but rather near than elsewhere: another node may have the same addresses. */
function findOwner(host: Host, asker: LinkRef, ip: Ip): LinkRef | undefined {
  const here = new Set(surroundings(host, asker));
  let elsewhere: LinkRef | undefined;
  for (const [netns, { links }] of Object.entries(host.netns)) {
    if (netns === asker.netns) continue;
    const link = Object.values(links).find(({ addresses }) => addresses.some((a) => a.ip === ip));
    if (!link) continue;
    const owner = { netns, ifname: link.ifname };
    const isNear = surroundings(host, owner).some((each) => each !== undefined && here.has(each));
    if (isNear) return owner;
    elsewhere ??= owner;
  }
  return elsewhere;
}

/** What keeps the owner of an address from being asked, or from answering; undefined where nothing is seen. */
function ofOwner(
  host: Host,
  asker: LinkRef,
  owner: LinkRef,
  ip: Ip,
  blame: BlameDrop,
): Blame | undefined {
  const link = findLink(host, owner);
  const netns = findNetns(host, owner.netns);
  if (!link || !netns) return undefined;
  if (!hasCarrier(host, owner)) {
    const found = ofSilence(host, owner, '');
    return { netns: owner.netns, ...found };
  }
  const segment = segmentOf(host, asker);
  const port = link.kind === 'veth' && link.peer ? link.peer : undefined;
  const master = port && findLink(host, port)?.port?.master;
  if (segment && port && port.netns === segment.netns && master !== segment.ifname)
    return {
      netns: port.netns,
      object: `link ${port.ifname}`,
      text: `is no port of bridge ${segment.ifname}, behind which ${ip} is asked for`,
      mend: [within(port.netns, `ip link set ${port.ifname} master ${segment.ifname}`)],
    };
  if (port && findLink(host, port)?.port?.isolated)
    return { netns: port.netns, ...ofPort(host, port, 'BRIDGE_ISOLATED', '') };
  const ignores = [owner.ifname, 'all' as const].find(
    (of) => Number(linkSysctl(netns, 4, of as typeof owner.ifname, 'arp_ignore')) > 0,
  );
  // Who does not route what comes from the asker does not answer it either (net/ipv4/arp.c, arp_process).
  const source = findLink(host, asker)?.addresses.find((a) => familyOf(a.ip) === familyOf(ip))?.ip;
  const routed = source && routeInput(netns, owner.ifname, source, ip);
  if (routed?.kind === 'drop') {
    const { reason, text } = routed;
    const place = { netns: owner.netns, link: owner.ifname };
    const lookedUp = { kind: 'route', destination: ip, found: null } as const;
    const flows = [{ source: source ?? null, iif: owner.ifname }];
    const verdict = { kind: 'dropped', reason, text, lookedUp, ...place } as const;
    return { ...place, ...blame(host, verdict, flows) };
  }
  if (familyOf(ip) === 4 && ignores !== undefined)
    return sysctl(
      owner.netns,
      `net/ipv4/conf/${ignores}/arp_ignore`,
      '0',
      `keeps ARP for ${ip} from being answered`,
    );
  return undefined;
}

/** Whatever keeps the owner of an address from answering, or that nobody has it. */
export function ofNeighbour(host: Host, asker: LinkRef, ip: Ip, blame: BlameDrop): Blame {
  const owner = findOwner(host, asker, ip);
  const found = owner && ofOwner(host, asker, owner, ip, blame);
  return (
    found ?? {
      object: `neighbour ${ip}`,
      text: owner
        ? `does not answer on link ${asker.ifname}`
        : `is nobody's address: nobody answers on link ${asker.ifname}`,
      mend: [],
    }
  );
}

/** What somebody set wrong about the MAC address that a frame is for: where it is, or whose. */
export function ofMac(host: Host, { netns: first, lookedUp }: Dropped): Blame | undefined {
  if (lookedUp?.kind !== 'fdb' && lookedUp?.kind !== 'own mac') return undefined;
  const { mac } = lookedUp;
  const stray = strayEntry(host, first, mac);
  if (stray) {
    const { netns, object, text, mend } = stray;
    return { netns, object, text, mend: [within(netns, mend)] };
  }
  return lookedUp.kind === 'own mac' ? ofWrongNeighbour(host, mac) : undefined;
}

/** A neighbour that somebody set to a MAC that the frame did not arrive with. */
function ofWrongNeighbour(host: Host, mac: Mac): Blame | undefined {
  for (const [netns, { links }] of Object.entries(host.netns)) {
    for (const { ifname, neighbours } of Object.values(links)) {
      const wrong = neighbours.find((each) => each.mac === mac);
      if (wrong)
        return {
          netns,
          object: `neighbour ${wrong.ip}`,
          text: `is set to ${mac} on link ${ifname}, and that is not where it is`,
          mend: [within(netns, `ip neigh del ${wrong.ip} dev ${ifname}`)],
        };
    }
  }
  return undefined;
}
