/** Entries that somebody made for good, and that lead to a MAC address which is not there. */
import { hostPrefix } from '../../model/connected.ts';
import { type FdbEntry, fdbOf } from '../../model/fdb.ts';
import { getNetns } from '../../model/host.ts';
import type { LinkRef, Neighbour } from '../../model/link.ts';
import { within } from '../cause.ts';
import { strayEntryIn } from '../stray-entry.ts';
import { type HostFinding, seen, seenAddress } from './finding.ts';
import type { Look } from './look.ts';
import type { PlacedLink, Segment } from './segment.ts';

function macsOf({ ends, ports }: Segment): Set<string> {
  return new Set([...ends, ...ports].flatMap(({ link }) => link.mac ?? []));
}

function neighbourFinding(
  { ends, isOpen }: Segment,
  macs: ReadonlySet<string>,
  at: PlacedLink,
  { ip, mac }: Neighbour,
): HostFinding | undefined {
  const { netns, ifname } = at;
  const owner = ends.find(({ link }) => link.addresses.some((address) => address.ip === ip));
  const address = owner?.link.addresses.find((each) => each.ip === ip);
  const isWrong = owner !== undefined && owner.link.mac !== mac;
  const isNobodys = !isOpen && !macs.has(mac);
  if (!isWrong && !isNobodys) return undefined;
  const evidence = [seen(netns, `${ip} dev ${ifname} lladdr ${mac} PERMANENT`)];
  return {
    severity: 'error',
    kind: 'stale-neighbour',
    netns,
    object: `neighbour ${ip}`,
    text: isWrong
      ? `is set to ${mac} on link ${ifname}, and is at ${owner.link.mac}`
      : `is set to ${mac} on link ${ifname}, which is nobody's`,
    evidence: owner && address ? [...evidence, seenAddress(owner, owner.link, address)] : evidence,
    affects: [hostPrefix(ip)],
    mend: [within(netns, `ip neigh del ${ip} dev ${ifname}`)],
  };
}

/** Neighbours that are set to another MAC address than theirs, or to one that nobody in their segment has. */
export function staleNeighbours({ segments }: Look): HostFinding[] {
  return segments.flatMap((segment) => {
    const macs = macsOf(segment);
    return segment.ends.flatMap((at) =>
      at.link.neighbours.flatMap((each) => neighbourFinding(segment, macs, at, each) ?? []),
    );
  });
}

/** Is a link the far end of this port? */
function isBehind({ link }: PlacedLink, port: LinkRef): boolean {
  return (
    link.kind === 'veth' && link.peer?.netns === port.netns && link.peer.ifname === port.ifname
  );
}

function fdbFinding(
  segment: Segment,
  bridge: PlacedLink,
  { mac, port }: FdbEntry,
): HostFinding | undefined {
  if (port === null) return undefined;
  const { netns, ifname } = bridge;
  const there = segment.ends.find(({ link }) => link.mac === mac);
  // What has a veth of its own is behind the other end of that.
  const isElsewhere = there?.link.kind === 'veth' && !isBehind(there, { netns, ifname: port });
  const isNobodys = !segment.isOpen && !macsOf(segment).has(mac);
  if (!isElsewhere && !isNobodys) return undefined;
  return {
    severity: 'warning',
    kind: 'stale-fdb-entry',
    netns,
    object: `FDB entry ${mac} of bridge ${ifname}`,
    text: isElsewhere
      ? `leads to port ${port}, and it is link ${there.ifname} in netns ${there.netns}`
      : `leads to port ${port}, and it is nobody's`,
    evidence: [
      seen(netns, `${mac} dev ${port} master ${ifname} static`),
      ...(isElsewhere ? [seen(there.netns, `${mac} is ${there.ifname}`)] : []),
    ],
    mend: [within(netns, `bridge fdb del ${mac} dev ${port} master`)],
  };
}

/** Entries that are this host's by somebody's word and not in truth, and own ones that are missing. */
function localFindings(segment: Segment, bridge: PlacedLink, { host }: Look): HostFinding[] {
  const { netns, link } = bridge;
  if (link.kind !== 'bridge' || !link.fdb) return [];
  const { entries, missing } = link.fdb;
  const macs = macsOf(segment);
  const local = entries.filter(({ mac, state }) => state === 'local' && macs.has(mac));
  return [...missing, ...local.map(({ mac }) => mac)].flatMap((mac): HostFinding[] => {
    const { links } = getNetns(host, netns);
    const stray = strayEntryIn(host, netns, links, link, mac);
    if (!stray) return [];
    const { object, text, mend } = stray;
    const evidence = missing.includes(mac)
      ? seen(netns, `no ${mac} master ${link.ifname} permanent`)
      : seen(netns, `${mac} master ${link.ifname} permanent`);
    const about = { severity: 'error', kind: 'stale-fdb-entry', netns, object, text } as const;
    return [{ ...about, evidence: [evidence], mend: [within(netns, mend)] }];
  });
}

/** Entries of bridges for a MAC address that is behind another port, that nobody in the segment has, or that is not the bridge's; and own ones that are missing. */
export function staleFdbEntries(look: Look): HostFinding[] {
  return look.segments.flatMap((segment) =>
    segment.ends.flatMap((bridge) =>
      bridge.link.kind === 'bridge'
        ? [
            ...fdbOf(bridge.link)
              .entries.filter(({ state }) => state === 'static')
              .flatMap((entry) => fdbFinding(segment, bridge, entry) ?? []),
            ...localFindings(segment, bridge, look),
          ]
        : [],
    ),
  );
}
