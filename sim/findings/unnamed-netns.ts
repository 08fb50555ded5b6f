/** Host ends of pods whose netns has no name: it is alive all the same, since a veth goes with the netns of either end (K-2.4). */
import { findLink } from '../../model/host.ts';
import { type Link, type LinkRef, OWNER_MARK } from '../../model/link.ts';
import { within } from '../cause.ts';
import { type HostFinding, seen } from './finding.ts';
import type { Look } from './look.ts';

/** `network/container/ifname` of a host end of ours, undefined for other links. */
export function attachmentOf({ alias }: Link): string | undefined {
  const [mark, key] = alias.split(' ');
  return mark === OWNER_MARK && key?.includes('/') ? key : undefined;
}

/** Commands that show who has the far end of a veth: the number of its netns here, and the processes of each. */
export function farEndCommands({ netns, ifname }: LinkRef): string[] {
  return [
    within(netns, `ip -o link show ${ifname}`),
    within(netns, 'lsns -t net -o NETNSID,NS,PID,COMMAND'),
  ];
}

/** Veths whose far end is in a netns without a name, which a process, an open file or a mount elsewhere keeps: of ours one would be known. */
export function unnamedNetns({ host, links, pods }: Look): HostFinding[] {
  return links.flatMap(({ netns, ifname, link }): HostFinding[] => {
    if (link.kind !== 'veth' || link.peer !== null) return [];
    const key = attachmentOf(link);
    const master = link.port?.master;
    const isAmongPods = pods.some(
      ({ node, hostEnd }) => node === netns && findLink(host, hostEnd)?.port?.master === master,
    );
    if (key === undefined && (master === undefined || !isAmongPods)) return [];
    return [
      {
        severity: key === undefined ? 'note' : 'warning',
        kind: 'unnamed-netns',
        netns,
        object: `link ${ifname}`,
        text: 'leads to a netns that has no name, and that somebody keeps: a running container, or a process that is left over',
        evidence: [
          seen(
            netns,
            `${ifname}${master === undefined ? '' : `, master ${master}`}, far end unknown${key === undefined ? '' : `, of ${key}`}`,
          ),
        ],
        mend: farEndCommands({ netns, ifname }),
      },
    ];
  });
}
