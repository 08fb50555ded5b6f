/** The ports of bridges, found once for as long as nothing changes: on a host of a thousand pods each frame asks for them. */
import { type Netns, portsOf } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { Link } from '../model/link.ts';
import type { Mac } from '../model/mac.ts';

interface Ports {
  readonly all: readonly Link[];
  readonly byMac: ReadonlyMap<Mac, readonly Link[]>;
}

/** States are never changed, so that what follows from one holds for good. */
const KNOWN = new WeakMap<Netns['links'], Map<Ifname, Ports>>();

function find(netns: Netns, bridge: Ifname): Ports {
  const all = portsOf(netns, bridge);
  const byMac = new Map<Mac, Link[]>();
  for (const port of all) {
    if (port.mac === null) continue;
    const same = byMac.get(port.mac);
    if (same) same.push(port);
    else byMac.set(port.mac, [port]);
  }
  return { all, byMac };
}

/** The ports of a bridge by name, all of them and those with each MAC. */
export function portsAt(netns: Netns, bridge: Ifname): Ports {
  const known = KNOWN.get(netns.links) ?? new Map<Ifname, Ports>();
  KNOWN.set(netns.links, known);
  const ports = known.get(bridge) ?? find(netns, bridge);
  known.set(bridge, ports);
  return ports;
}
