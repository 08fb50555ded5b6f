/** The bridge that attachments share: what it has to be like, and what is left of it when one goes. */
import { type Address, makeAddress, sameAddress } from '../model/address.ts';
import type { DesiredLink } from '../model/desired.ts';
import { HOST_NETNS, type Host, findLink } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import { type Link, type LinkRef, OWNER_MARK, isOurs } from '../model/link.ts';
import { prefixOf } from '../model/prefix.ts';
import type { Attachment } from './attachment.ts';
import { gatewayRef, gatewayWithout, vlanProblem } from './vlan.ts';

/** The bridge of configurations that name none, as the reference has it. */
export const DEFAULT_BRIDGE = 'cni0' as Ifname;

/** The bridge that a raw configuration names. */
export function bridgeOf({ bridge }: Readonly<Record<string, unknown>>): Ifname {
  return typeof bridge === 'string' ? (bridge as Ifname) : DEFAULT_BRIDGE;
}

/** The attachment's bridge; of no meaning in mode `ptp`. */
function bridgeRef({ bridge }: Attachment): LinkRef {
  return { netns: HOST_NETNS, ifname: bridge };
}

/** The addresses of the gateways as the bridge, or the link of its VLAN, carries them. */
export function gatewayAddresses(attachment: Attachment): Address[] {
  if (!attachment.gateway) return [];
  const unique = new Map<Ip, number>();
  for (const { gateway, prefixLength } of attachment.addresses)
    if (gateway !== null) unique.set(gateway, prefixLength);
  return [...unique].map(([ip, prefixLength]) => makeAddress({ ip, prefixLength }));
}

/** Addresses of that link that cannot stay beside the gateways: other IPv4 ones, and IPv6 ones of an overlapping prefix, as the reference has it. */
export function conflictingAddresses(attachment: Attachment, observed: Host): Address[] {
  const wanted = gatewayAddresses(attachment);
  const carrier = findLink(observed, gatewayRef(attachment));
  return (carrier?.addresses ?? []).filter((have) => {
    if (wanted.some((w) => w.ip === have.ip && w.prefixLength === have.prefixLength)) return false;
    if (have.scope === 'link') return false;
    return wanted.some(
      (w) => familyOf(w.ip) === familyOf(have.ip) && (familyOf(w.ip) === 4 || sharePrefix(w, have)),
    );
  });
}

function sharePrefix(a: Address, b: Address): boolean {
  const length = Math.min(a.prefixLength, b.prefixLength);
  return prefixOf(a.ip, length) === prefixOf(b.ip, length);
}

/** Before it has its mark, which takes an operation of its own, a bridge of ours is known by the MAC it was made with. */
function isOurBridge({ bridgeMac }: Attachment, bridge: Link): boolean {
  return isOurs(bridge) || bridge.mac === bridgeMac;
}

/** An address as a link has it already: of somebody else's we change neither flags nor scope. */
function asFound(address: Address, link: Link | undefined): Address {
  const same = link?.addresses.find(
    (a) => a.ip === address.ip && a.prefixLength === address.prefixLength,
  );
  return same ?? address;
}

/** The gateways on the link that carries them. */
export function desiredGateways(
  attachment: Attachment,
  observed: Host,
): NonNullable<Exclude<DesiredLink, 'absent'>['addresses']> {
  const carrier = findLink(observed, gatewayRef(attachment));
  const ours = carrier === undefined || isOurs(carrier) || isOurBridge(attachment, carrier);
  return {
    present: gatewayAddresses(attachment).map((a) => (ours ? a : asFound(a, carrier))),
    absent: attachment.forceAddress ? conflictingAddresses(attachment, observed) : [],
    others: 'keep',
  };
}

/** Why the attachment's VLANs would not be kept apart on its bridge, undefined when they are. */
export function bridgeVlanProblem(attachment: Attachment, observed: Host): string | undefined {
  const bridge = findLink(observed, bridgeRef(attachment));
  return vlanProblem(attachment, observed, !bridge || isOurBridge(attachment, bridge));
}

/** What the bridge has to be for the attachment to work. */
export function desiredBridge(attachment: Attachment, observed: Host): DesiredLink {
  const found = findLink(observed, bridgeRef(attachment));
  const existing = found?.kind === 'bridge' ? found : undefined;
  const ours = existing === undefined || isOurBridge(attachment, existing);
  const { bridgeMac, mtuBytes } = attachment;
  return {
    kind: 'bridge',
    // An existing bridge keeps its MAC, which pods have learned, and its MTU: unless somebody has chosen that, it is the
    // least of its ports' (K-1.11), so that what is configured takes effect as soon as it is safe.
    ...(existing === undefined ? { mac: bridgeMac, mtuBytes } : {}),
    ...(ours ? { alias: OWNER_MARK } : {}),
    ...(attachment.promiscuous ? { promiscuous: true } : {}),
    up: true,
    // Somebody else's bridge is not switched over: pods of others may depend on how it is.
    ...(attachment.vlans && ours ? { vlanFiltering: true } : {}),
    ...(attachment.vlans?.gateway ? {} : { addresses: desiredGateways(attachment, observed) }),
  };
}

/** What becomes of the bridge and the link of its VLAN when the attachment goes, by name; none when nothing does. */
export function bridgeWithout(
  attachment: Attachment,
  observed: Host,
  use: {
    readonly bridge: boolean;
    readonly vlans: boolean;
    readonly vlanGateway: boolean;
    readonly spareGateways: readonly Ip[];
  },
): Record<string, DesiredLink> {
  if (attachment.mode === 'ptp') return {};
  const bridge = findLink(observed, bridgeRef(attachment));
  const vlanLink = use.vlanGateway ? {} : gatewayWithout(attachment, observed);
  if (bridge?.kind !== 'bridge') return vlanLink;
  if (!use.bridge && isOurBridge(attachment, bridge))
    return { ...vlanLink, [attachment.bridge]: 'absent' };
  const carrier = findLink(observed, gatewayRef(attachment));
  const gateways = gatewayAddresses(attachment).filter(({ ip }) => use.spareGateways.includes(ip));
  const spare = (carrier?.addresses ?? []).filter((a) =>
    gateways.some((gateway) => sameAddress(gateway, a)),
  );
  const addresses = { present: [], absent: spare, others: 'keep' as const };
  const wishes: Record<string, DesiredLink> =
    carrier && spare.length > 0 ? { [carrier.ifname]: { kind: 'any', addresses } } : {};
  // Those that stay are in the bridge's default VLAN.
  if (attachment.vlans && !use.vlans && isOurBridge(attachment, bridge))
    wishes[attachment.bridge] = {
      kind: 'bridge',
      vlanFiltering: false,
      ...(carrier === bridge ? { addresses } : {}),
    };
  return { ...wishes, ...vlanLink };
}
