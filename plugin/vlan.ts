/** VLANs of the bridge: which ones a pod's port is a member of, and the link that a VLAN's gateway is on. */
import type { DesiredLink, DesiredPort } from '../model/desired.ts';
import { HOST_NETNS, type Host, type Netns, findLink } from '../model/host.ts';
import { type Ifname, ifnameProblem } from '../model/ifname.ts';
import { type LinkRef, OWNER_MARK, isOurs } from '../model/link.ts';
import type { Mac } from '../model/mac.ts';
import { type VlanRange, formatVlan, vlan, withVlans } from '../model/vlan.ts';
import type { Attachment } from './attachment.ts';
import type { Config } from './cni/config.ts';

/**
 * A link of the host in a VLAN, which carries the gateways of the VLAN's pods: a veth whose other end is a port of the
 * bridge, as the reference has it (ensureVlanInterface). The bridge itself is in no VLAN but its default one.
 */
export interface VlanGateway {
  /** The bridge's name, a point and the VLAN. */
  readonly ifname: Ifname;
  readonly mac: Mac;
  readonly portIfname: Ifname;
  readonly portMac: Mac;
}

/** The VLANs of an attachment. */
export interface AttachmentVlans {
  readonly ranges: readonly VlanRange[];
  /** The port stays in the VLAN that the bridge puts every port in, beside these. */
  readonly keepsDefault?: true;
  /** Absent: the host is no gateway, or is one in the bridge's default VLAN. */
  readonly gateway?: VlanGateway;
}

/** What frames without a tag are of on a trunk, unless a VLAN was chosen for them. */
const NATIVE_VLAN = 1;

/** The VLANs that a configuration puts a port in: untagged frames in one, frames with a tag in those of the trunk. */
export function rangesOf({ vlan: chosen, vlanTrunk = [] }: Config): readonly VlanRange[] {
  const tagged = vlanTrunk.flatMap(({ minID, maxID, id }) => [
    ...(minID === undefined || maxID === undefined
      ? []
      : [{ first: minID, last: maxID, pvid: false, untagged: false }]),
    ...(id === undefined ? [] : [vlan(id)]),
  ]);
  if (chosen === 0 && tagged.length === 0) return [];
  const native = vlan(chosen === 0 ? NATIVE_VLAN : chosen, { pvid: true, untagged: true });
  return [...tagged, native].reduce<readonly VlanRange[]>(withVlans, []);
}

/** The name of the link with a VLAN's gateways. */
export function gatewayIfname(bridge: Ifname, id: number): Ifname {
  return `${bridge}.${id}` as Ifname;
}

/** Why a configuration cannot have that link, undefined when it can or need not. */
export function gatewayNameProblem({ bridge, vlan: id }: Pick<Config, 'bridge' | 'vlan'>) {
  const problem = ifnameProblem(gatewayIfname(bridge, id));
  return problem && `cannot be called "${gatewayIfname(bridge, id)}": ${problem}`;
}

/** The link that carries the gateways: that of the VLAN, else the bridge. Of no meaning in mode `ptp`. */
export function gatewayRef({ bridge, vlans }: Pick<Attachment, 'bridge' | 'vlans'>): LinkRef {
  return { netns: HOST_NETNS, ifname: vlans?.gateway?.ifname ?? bridge };
}

/** What `DesiredPort` says of the VLANs of the pod's port. */
export function desiredVlans({ vlans }: Attachment): Pick<DesiredPort, 'vlans'> {
  if (!vlans) return {};
  return {
    vlans: { present: vlans.ranges, others: vlans.keepsDefault ? 'keep' : 'remove' },
  };
}

/** The VLANs as a configuration has them, for messages: `vlan = 100`, `vlanTrunk = 100-199`. */
export function vlanField({ ranges }: AttachmentVlans): string {
  const ids = (untagged: boolean): string[] =>
    ranges
      .filter((range) => range.untagged === untagged)
      .map((range) => formatVlan({ ...range, pvid: false, untagged: false }));
  const [tagged, native] = [ids(false), ids(true)];
  return tagged.length > 0 ? `vlanTrunk = ${tagged.join(', ')}` : `vlan = ${native.join(', ')}`;
}

/** Is the VLAN's link ours, or yet to be made? Somebody else's is used as it is. */
function isOurGateway({ ifname, portIfname, mac }: VlanGateway, observed: Host): boolean {
  const link = findLink(observed, { netns: HOST_NETNS, ifname });
  if (link === undefined) return true;
  if (link.kind !== 'veth') return false;
  return link.mac === mac || (isOurs(link) && link.peer?.ifname === portIfname);
}

/** The bridge that has the name of the VLAN's link: it has pods of its own. */
export function bridgeInTheWay({ vlans }: Attachment, observed: Host): Ifname | undefined {
  if (!vlans?.gateway) return undefined;
  const link = findLink(observed, { netns: HOST_NETNS, ifname: vlans.gateway.ifname });
  return link?.kind === 'bridge' ? link.ifname : undefined;
}

/** The links of a VLAN's gateways, by name; none without one. */
export function gatewayLinks({ vlans }: Attachment): Ifname[] {
  return vlans?.gateway ? [vlans.gateway.ifname, vlans.gateway.portIfname] : [];
}

/** The links of VLANs' gateways on a bridge, told by our mark and their names; each with the port that is its other end. */
export function gatewaysOn({ links }: Netns, bridge: Ifname): { ifname: Ifname; port: Ifname }[] {
  return Object.values(links).flatMap((link) => {
    if (link.kind !== 'veth' || link.alias !== OWNER_MARK || link.peer === null) return [];
    const { ifname: port } = link.peer;
    const isPort = links[port]?.port?.master === bridge && links[port].alias === OWNER_MARK;
    return isPort && link.ifname.startsWith(`${bridge}.`) ? [{ ifname: link.ifname, port }] : [];
  });
}

/** Both ends of the VLAN's link as they have to be; `addresses` go on the one that is no port. */
export function desiredGateway(
  { bridge, mtuBytes, vlans }: Attachment,
  observed: Host,
  addresses: NonNullable<Exclude<DesiredLink, 'absent'>['addresses']>,
): Record<string, DesiredLink> {
  const gateway = vlans?.gateway;
  if (!gateway) return {};
  const { ifname, mac, portIfname, portMac } = gateway;
  if (!isOurGateway(gateway, observed)) return { [ifname]: { kind: 'any', up: true, addresses } };
  const native = vlans.ranges.filter(({ pvid }) => pvid);
  // The MTU with which it was made stays: others may use it with another.
  const made = findLink(observed, { netns: HOST_NETNS, ifname }) === undefined ? { mtuBytes } : {};
  const end = { kind: 'veth', alias: OWNER_MARK, up: true, ...made } as const;
  return {
    [ifname]: { ...end, mac, peer: { netns: HOST_NETNS, ifname: portIfname }, addresses },
    [portIfname]: {
      ...end,
      mac: portMac,
      peer: { netns: HOST_NETNS, ifname },
      port: { master: bridge, vlans: { present: native, others: 'remove' } },
    },
  };
}

/** What becomes of the VLAN's link when the last attachment goes that uses it; undefined when nothing does. */
export function gatewayWithout({ vlans }: Attachment, observed: Host): Record<string, DesiredLink> {
  const gateway = vlans?.gateway;
  if (!gateway) return {};
  const link = findLink(observed, { netns: HOST_NETNS, ifname: gateway.ifname });
  return link && isOurGateway(gateway, observed) ? { [gateway.ifname]: 'absent' } : {};
}

/** Why the bridge keeps no VLANs apart although the attachment needs it, undefined when it does or will. */
export function vlanProblem(
  { bridge, vlans }: Attachment,
  observed: Host,
  isOurBridge: boolean,
): string | undefined {
  if (!vlans) return undefined;
  const found = findLink(observed, { netns: HOST_NETNS, ifname: bridge });
  if (isOurBridge || found?.kind !== 'bridge' || found.vlans?.filtering !== false) return undefined;
  const ids = vlans.ranges.map((range) => formatVlan({ ...range, pvid: false, untagged: false }));
  return `bridge "${bridge}" does not filter VLANs, so that ${ids.join(', ')} would not be kept apart`;
}
