/** MAC addresses that two links of a segment have: a bridge sends their frames to one of them, and moves the entry back and forth. */
import { hostPrefix } from '../../model/connected.ts';
import type { Mac } from '../../model/mac.ts';
import { within } from '../cause.ts';
import { type HostFinding, seen } from './finding.ts';
import type { Look } from './look.ts';
import type { PlacedLink, Segment } from './segment.ts';

function placedText({ netns, ifname, link }: PlacedLink): string {
  const port = link.port ? `, port of ${link.port.master}` : '';
  return seen(netns, `${link.mac} is ${ifname}${port}`);
}

function isPortOf(port: PlacedLink, bridge: PlacedLink): boolean {
  return port.netns === bridge.netns && port.link.port?.master === bridge.ifname;
}

/** May both have it? A bridge takes that of a port, a VLAN device that of the card below. */
function mayShare(a: PlacedLink, b: PlacedLink): boolean {
  return (
    isPortOf(a, b) ||
    isPortOf(b, a) ||
    (a.link.port !== null && b.link.port !== null) ||
    a.link.kind === 'device' ||
    b.link.kind === 'device'
  );
}

function inSegment({ ends, ports }: Segment): HostFinding[] {
  // Without a bridge or a macvlan frames need no address to find their way.
  if (ends.length + ports.length < 3) return [];
  const found: HostFinding[] = [];
  const first = new Map<Mac, PlacedLink[]>();
  for (const placed of [...ports, ...ends]) {
    const { mac } = placed.link;
    if (mac === null || placed.link.kind === 'loopback') continue;
    const others = first.get(mac) ?? [];
    first.set(mac, [...others, placed]);
    const other = others.find((each) => !mayShare(each, placed));
    if (!other) continue;
    const { netns, ifname } = placed;
    found.push({
      severity: 'error',
      kind: 'duplicate-mac',
      netns,
      object: `link ${ifname}`,
      text: `has the MAC address of link ${other.ifname} in netns ${other.netns}, in the same segment`,
      evidence: [placedText(other), placedText(placed)],
      affects: [other, placed].flatMap(({ link }) =>
        link.addresses.map(({ ip }) => hostPrefix(ip)),
      ),
      mend: [within(netns, `ip link set ${ifname} address MAC`)],
    });
  }
  return found;
}

/** MAC addresses that two links of one bridge's segment have, where the bridge could not tell them apart. */
export function duplicateMacs({ segments }: Look): HostFinding[] {
  return segments.flatMap(inSegment);
}
