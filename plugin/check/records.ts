/** What the state file and the host say of each other: records whose link is gone, links of ours that no record knows. */
import { HOST_NETNS, type Host, findLink } from '../../model/host.ts';
import { type HostFinding, seen } from '../../sim/findings/finding.ts';
import { attachmentOf, farEndCommands } from '../../sim/findings/unnamed-netns.ts';
import { formatKey } from '../attachment.ts';
import type { AttachmentRecord, Worker } from '../state.ts';

function withoutLink(host: Host, { attachment, state }: AttachmentRecord): HostFinding[] {
  const { key, hostIfname, addresses, netns } = attachment;
  if (findLink(host, { netns: HOST_NETNS, ifname: hostIfname })) return [];
  const [first] = addresses;
  return [
    {
      severity: 'warning',
      kind: 'record-without-link',
      netns: HOST_NETNS,
      object: `record ${formatKey(key)}`,
      text: `has no link: ${hostIfname} is not there`,
      evidence: [
        `${state}, pod in ${netns === '' ? 'a netns that nobody knows' : netns}`,
        ...addresses.map(({ ip, prefixLength }) => `has ${ip}/${prefixLength}`),
      ],
      mend: first ? [`cube-cni ipam release ${first.ip} --config CONFIG`] : [],
    },
  ];
}

/**
 * Records and links of this host that do not have each other. `isAlive` says whether a call still works on a record: then the link
 * may be about to come or to go.
 */
export function recordFindings(
  host: Host,
  records: readonly AttachmentRecord[],
  isAlive: (worker: Worker) => boolean,
): HostFinding[] {
  const underWay = (record: AttachmentRecord): boolean =>
    record.state === 'pending' && isAlive(record.worker);
  const known = new Set<string>(records.map(({ attachment }) => attachment.hostIfname));
  const links = Object.values(host.netns[HOST_NETNS]?.links ?? {});
  const unknown = links.flatMap((link): HostFinding[] => {
    const key = attachmentOf(link);
    if (key === undefined || link.kind !== 'veth' || known.has(link.ifname)) return [];
    return [
      {
        severity: 'warning',
        kind: 'link-without-record',
        netns: HOST_NETNS,
        object: `link ${link.ifname}`,
        text: `is marked as that of attachment ${key}, of which there is no record`,
        evidence: [seen(HOST_NETNS, `${link.ifname} alias "${link.alias}"`)],
        // A far end in another netns may be a running container's.
        mend:
          link.peer?.netns === HOST_NETNS
            ? [`ip link del ${link.ifname}`]
            : farEndCommands({ netns: HOST_NETNS, ifname: link.ifname }),
      },
    ];
  });
  return [
    ...records.filter((record) => !underWay(record)).flatMap((record) => withoutLink(host, record)),
    ...unknown,
  ];
}
