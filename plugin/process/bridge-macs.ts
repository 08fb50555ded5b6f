/** Whether somebody chose the MAC address of a bridge, which netlink does not tell and sysfs does. */
import { readFileSync } from 'node:fs';
import { HOST_NETNS, type Host, findNetns, withLink } from '../../model/host.ts';

/** NET_ADDR_SET (include/uapi/linux/netdevice.h). */
const CHOSEN = '3';

function readLine(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}

/**
 * The host with what sysfs says of the bridges in our own netns that seem to follow their ports. It has to say the same MAC address:
 * it may be that of another netns.
 */
export function withChosenMacs(host: Host, sysfs = '/sys'): Host {
  const bridges = Object.values(findNetns(host, HOST_NETNS)?.links ?? {}).flatMap((link) =>
    link.kind === 'bridge' && !link.macChosen ? [link] : [],
  );
  return bridges.reduce((state, link) => {
    const folder = `${sysfs}/class/net/${link.ifname}`;
    const isChosen =
      readLine(`${folder}/addr_assign_type`) === CHOSEN &&
      readLine(`${folder}/address`) === link.mac;
    return isChosen ? withLink(state, HOST_NETNS, { ...link, macChosen: true }) : state;
  }, host);
}
