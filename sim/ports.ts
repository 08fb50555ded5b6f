/** The ports of bridges, found once for as long as nothing changes: on a host of a thousand pods each frame asks for them. */
import { type Netns, portsOf } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import type { Link } from '../model/link.ts';
import type { Mac } from '../model/mac.ts';
import { oncePerWord } from './remembered.ts';

interface Ports {
  readonly all: readonly Link[];
  readonly byMac: ReadonlyMap<Mac, readonly Link[]>;
}

/** The ports of a bridge by name, all of them and those with each MAC. */
export const portsAt = oncePerWord((netns: Netns, bridge: Ifname): Ports => {
  const all = portsOf(netns, bridge);
  const byMac = new Map<Mac, Link[]>();
  for (const port of all) {
    if (port.mac === null) continue;
    const same = byMac.get(port.mac);
    if (same) same.push(port);
    else byMac.set(port.mac, [port]);
  }
  return { all, byMac };
});
