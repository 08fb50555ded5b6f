/** Host ends of pods whose netns has no name any more: a process keeps it, or nobody has taken the link away. */
import { findLink } from '../../model/host.ts';
import { type Link, OWNER_MARK } from '../../model/link.ts';
import { within } from '../cause.ts';
import { type HostFinding, seen } from './finding.ts';
import type { Look } from './look.ts';

/** `network/container/ifname` of a host end of ours, undefined for other links. */
export function attachmentOf({ alias }: Link): string | undefined {
  const [mark, key] = alias.split(' ');
  return mark === OWNER_MARK && key?.includes('/') ? key : undefined;
}

/** Veths whose far end is in a netns without a name: ours are leaked, of others nothing is known. */
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
        text: 'leads to a netns that has no name: a process keeps it, or it is left over',
        evidence: [
          seen(
            netns,
            `${ifname}${master === undefined ? '' : `, master ${master}`}, far end unknown${key === undefined ? '' : `, of ${key}`}`,
          ),
        ],
        mend: [within(netns, `ip link del ${ifname}`)],
      },
    ];
  });
}
