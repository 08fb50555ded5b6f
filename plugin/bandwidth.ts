/**
 * How fast a pod may be talked to and may talk. What goes into it waits at the host's end of its link; what it sends is taken
 * from there through a link of its own, since only what leaves a link can be made to wait.
 */
import type { DesiredAttributes, DesiredLink } from '../model/desired.ts';
import { HOST_NETNS, type Host, findLink } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import { type Link, isOurs } from '../model/link.ts';
import type { Mac } from '../model/mac.ts';
import type { TokenBucket } from '../model/traffic-control.ts';
import type { Attachment } from './attachment.ts';

/** The limits of a pod, seen from it; without one it may be as fast as the host can. */
export interface Limits {
  /** Of what the pod is sent. */
  readonly ingress?: TokenBucket;
  /** Of what it sends. */
  readonly egress?: TokenBucket;
}

/** The ifb of an attachment. */
export interface Ifb {
  readonly ifname: Ifname;
  readonly mac: Mac;
  /** That it shares with the host's end of the pod's link, so that both go at once; absent: each by itself. */
  readonly group?: number;
}

/** What keeps the limits of an attachment. */
export interface Bandwidth extends Limits {
  /** The ifb through which goes what the pod sends, when that is limited. */
  readonly ifb?: Ifb;
}

/** The links of an attachment that are there for its limits alone. */
export function limitLinks({ bandwidth }: Attachment): Ifname[] {
  return bandwidth?.ifb ? [bandwidth.ifb.ifname] : [];
}

/** What has to be done to packets at the host's end of the pod's link. */
export function desiredLimits({
  bandwidth,
}: Attachment): Pick<DesiredAttributes, 'trafficControl' | 'group'> {
  if (!bandwidth) return {};
  const { ingress, ifb } = bandwidth;
  return {
    ...(ifb?.group === undefined ? {} : { group: ifb.group }),
    trafficControl: {
      ...(ingress ? { root: ingress } : {}),
      ...(ifb ? { ingress: { redirect: ifb.ifname } } : {}),
    },
  };
}

/** The ifb as it has to be, by name; `alias` says whose it is. */
export function desiredIfb(
  { bandwidth, mtuBytes }: Attachment,
  alias: string,
): Record<string, DesiredLink> {
  const { ifb, egress } = bandwidth ?? {};
  if (!ifb || !egress) return {};
  const { ifname, ...made } = ifb;
  const trafficControl = { root: egress };
  return { [ifname]: { kind: 'ifb', ...made, mtuBytes, alias, up: true, trafficControl } };
}

/** Is the link with the name of the ifb the one that ADD makes? Before it has its mark, it is known by its MAC address. */
function isOwnIfb({ bandwidth }: Attachment, observed: Host): boolean {
  const { ifname, mac } = bandwidth?.ifb ?? {};
  const link = ifname && findLink(observed, { netns: HOST_NETNS, ifname });
  return link !== undefined && link.kind === 'ifb' && (isOurs(link) || link.mac === mac);
}

/** The link that has the name of the ifb and is somebody else's. */
export function linkInTheWay(attachment: Attachment, observed: Host): Ifname | undefined {
  const [ifname] = limitLinks(attachment);
  const found = ifname && findLink(observed, { netns: HOST_NETNS, ifname });
  return found && !isOwnIfb(attachment, observed) ? found.ifname : undefined;
}

/** What becomes of the ifb when the attachment goes. */
export function ifbWithout(attachment: Attachment, observed: Host): Record<string, DesiredLink> {
  const [ifname] = limitLinks(attachment);
  return ifname && isOwnIfb(attachment, observed) ? { [ifname]: 'absent' } : {};
}

function ifbOf({ ifname, group }: Link, mac: Mac): Ifb {
  return { ifname, mac, ...(group === undefined ? {} : { group }) };
}

/** The limits that the kernel keeps at the host's end `hostIfname` of a pod's link. */
export function limitsIn(observed: Host, hostIfname: Ifname): Pick<Attachment, 'bandwidth'> {
  const at = (ifname: Ifname) => findLink(observed, { netns: HOST_NETNS, ifname });
  const bucketOf = (ifname: Ifname): TokenBucket | undefined => {
    const root = at(ifname)?.trafficControl?.root;
    if (root?.kind !== 'tbf') return undefined;
    const { kind: _kind, ...bucket } = root;
    return bucket;
  };
  const ingress = bucketOf(hostIfname);
  const ifb = at(at(hostIfname)?.trafficControl?.ingress?.redirect ?? ('' as Ifname));
  const egress = ifb && bucketOf(ifb.ifname);
  const isShaped = ifb?.kind === 'ifb' && isOurs(ifb) && ifb.mac !== null && egress;
  if (!ingress && !isShaped) return {};
  return {
    bandwidth: {
      ...(ingress ? { ingress } : {}),
      ...(isShaped && ifb.mac ? { egress, ifb: ifbOf(ifb, ifb.mac) } : {}),
    },
  };
}
