/** The bridge that attachments share: what it has to be like, and what is left of it when one goes. */
import { type Address, makeAddress, sameAddress } from '../model/address.ts';
import type { DesiredLink } from '../model/desired.ts';
import { HOST_NETNS, type Host, findLink } from '../model/host.ts';
import type { Ifname } from '../model/ifname.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import { type Link, type LinkRef, OWNER_MARK, isOurs } from '../model/link.ts';
import { prefixOf } from '../model/prefix.ts';
import type { Attachment } from './attachment.ts';

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

/** The addresses of the gateways as the bridge carries them. */
export function gatewayAddresses(attachment: Attachment): Address[] {
  if (!attachment.gateway) return [];
  const unique = new Map<Ip, number>();
  for (const { gateway, prefixLength } of attachment.addresses)
    if (gateway !== null) unique.set(gateway, prefixLength);
  return [...unique].map(([ip, prefixLength]) => makeAddress({ ip, prefixLength }));
}

/** Addresses of the bridge that cannot stay beside the gateways: other IPv4 ones, and IPv6 ones of an overlapping prefix, as the reference has it. */
export function conflictingAddresses(attachment: Attachment, observed: Host): Address[] {
  const wanted = gatewayAddresses(attachment);
  const bridge = findLink(observed, bridgeRef(attachment));
  return (bridge?.addresses ?? []).filter((have) => {
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

/** An address as the bridge has it already: of somebody else's we change neither flags nor scope. */
function asFound(address: Address, bridge: Link | undefined): Address {
  const same = bridge?.addresses.find(
    (a) => a.ip === address.ip && a.prefixLength === address.prefixLength,
  );
  return same ?? address;
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
    addresses: {
      present: gatewayAddresses(attachment).map((a) => (ours ? a : asFound(a, existing))),
      absent: attachment.forceAddress ? conflictingAddresses(attachment, observed) : [],
      others: 'keep',
    },
  };
}

/** What becomes of the bridge when the attachment goes; undefined when nothing does. */
export function bridgeWithout(
  attachment: Attachment,
  observed: Host,
  use: { readonly bridge: boolean; readonly spareGateways: readonly Ip[] },
): DesiredLink | undefined {
  if (attachment.mode === 'ptp') return undefined;
  const bridge = findLink(observed, bridgeRef(attachment));
  if (bridge?.kind !== 'bridge') return undefined;
  if (!use.bridge && isOurBridge(attachment, bridge)) return 'absent';
  const gateways = gatewayAddresses(attachment).filter(({ ip }) => use.spareGateways.includes(ip));
  const spare = bridge.addresses.filter((a) => gateways.some((gateway) => sameAddress(gateway, a)));
  if (spare.length === 0) return undefined;
  return { kind: 'any', addresses: { present: [], absent: spare, others: 'keep' } };
}
