/** What an attachment wants of the network, what is left when it goes, and what has to be read to plan either. */
import type { NetnsScope, Scope, TableScope } from '../backends/backend.ts';
import { type Address, makeAddress, sameAddress } from '../model/address.ts';
import type { DesiredHost, DesiredLink, DesiredNetns } from '../model/desired.ts';
import { HOST_NETNS, type Host, findLink, findNetns } from '../model/host.ts';
import { type Ip, familyOf } from '../model/ip.ts';
import { type Link, type LinkRef, OWNER_MARK, isOurs } from '../model/link.ts';
import { type Prefix, prefixOf } from '../model/prefix.ts';
import { PROTOCOL_CUBE, type Route, makeRoute } from '../model/route.ts';
import { linkSysctlKey } from '../model/sysctl.ts';
import { type Attachment, formatKey } from './attachment.ts';
import {
  TABLE,
  TABLE_KEY,
  mapOf,
  subnetsOf,
  withMasquerade,
  withoutMasquerade,
} from './masquerade.ts';

const IP_FORWARD = 'net/ipv4/ip_forward';
const IP6_FORWARD = linkSysctlKey(6, 'all', 'forwarding');

function hasFamily(attachment: Attachment, family: 4 | 6): boolean {
  return attachment.addresses.some(({ ip }) => familyOf(ip) === family);
}

function bridgeRef({ bridge }: Attachment): LinkRef {
  return { netns: HOST_NETNS, ifname: bridge };
}

function hostEnd({ hostIfname }: Attachment): LinkRef {
  return { netns: HOST_NETNS, ifname: hostIfname };
}

function podEnd({ netns, key }: Attachment): LinkRef {
  return { netns, ifname: key.ifname };
}

/** The addresses of the gateways as the bridge carries them. */
export function gatewayAddresses(attachment: Attachment): Address[] {
  if (!attachment.gateway) return [];
  const unique = new Map(
    attachment.addresses.map(({ gateway, prefixLength }) => [gateway, prefixLength]),
  );
  return [...unique].map(([ip, prefixLength]) => makeAddress({ ip, prefixLength }));
}

function tableScope(attachment: Attachment): TableScope[] {
  if (!attachment.masquerade) return [];
  const of = (family: 4 | 6): readonly Ip[] =>
    attachment.addresses.map(({ ip }) => ip).filter((ip) => familyOf(ip) === family);
  return [{ ...TABLE, elements: { [mapOf(4)]: of(4), [mapOf(6)]: of(6) } }];
}

/** The sysctls of the pod that decide whether IPv6 works at once; those of a link that is yet to come are `default`'s. */
function podSysctls(attachment: Attachment): string[] {
  if (!hasFamily(attachment, 6)) return [];
  return ['disable_ipv6', 'accept_dad'].flatMap((name) => [
    linkSysctlKey(6, 'default', name),
    linkSysctlKey(6, attachment.key.ifname, name),
  ]);
}

/** What ADD and CHECK read: no more than their plan depends on, however many pods there are. */
export function attachScope(attachment: Attachment): Scope {
  const forward = attachment.gateway
    ? [
        ...(hasFamily(attachment, 4) ? [IP_FORWARD] : []),
        ...(hasFamily(attachment, 6) ? [IP6_FORWARD] : []),
      ]
    : [];
  const host: NetnsScope = {
    links: [attachment.bridge, attachment.hostIfname],
    // Addresses that are to be replaced take the routes of others along (K-3.5): undo brings both back.
    routes: attachment.forceAddress && attachment.gateway ? 'all' : 'none',
    sysctls: forward,
    nftables: tableScope(attachment),
  };
  const pod: NetnsScope = {
    links: [attachment.key.ifname],
    routes: 'all',
    sysctls: podSysctls(attachment),
    nftables: [],
  };
  return { [HOST_NETNS]: host, [attachment.netns]: pod };
}

/** What DEL reads: the host's part, since the pod's goes with it. */
export function detachScope(attachment: Attachment): Scope {
  return {
    [HOST_NETNS]: {
      links: [attachment.bridge, attachment.hostIfname],
      routes: 'none',
      sysctls: [],
      nftables: tableScope(attachment),
    },
  };
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

function podRoutes(attachment: Attachment): Route[] {
  return attachment.routes.map(({ destination, gateway }) =>
    makeRoute({ destination, gateway, device: attachment.key.ifname, protocol: PROTOCOL_CUBE }),
  );
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

function desiredBridge(attachment: Attachment, observed: Host): DesiredLink {
  const found = findLink(observed, bridgeRef(attachment));
  const existing = found?.kind === 'bridge' ? found : undefined;
  const ours = existing === undefined || isOurBridge(attachment, existing);
  return {
    kind: 'bridge',
    // An existing bridge keeps its MAC, which pods have learned, and its MTU.
    ...(existing === undefined ? { mac: attachment.bridgeMac, mtuBytes: attachment.mtuBytes } : {}),
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

/** What a host has to be for the attachment to work. `observed` tells whether shared objects are there already, and whose. */
export function attached(attachment: Attachment, observed: Host): DesiredHost {
  const pod = podEnd(attachment);
  const host = hostEnd(attachment);
  const v6 = hasFamily(attachment, 6);
  const forward: Record<string, string> = attachment.gateway
    ? {
        ...(hasFamily(attachment, 4) ? { [IP_FORWARD]: '1' } : {}),
        ...(v6 ? { [IP6_FORWARD]: '1' } : {}),
      }
    : {};
  const hostNetns: DesiredNetns = {
    links: {
      [attachment.bridge]: desiredBridge(attachment, observed),
      [attachment.hostIfname]: {
        kind: 'veth',
        peer: pod,
        mac: attachment.hostMac,
        mtuBytes: attachment.mtuBytes,
        alias: `${OWNER_MARK} ${formatKey(attachment.key)}`.slice(0, 255),
        port: { master: attachment.bridge, hairpin: attachment.hairpin },
        up: true,
      },
    },
    sysctls: forward,
    ...(attachment.masquerade ? { tables: { [TABLE_KEY]: withMasquerade(attachment) } } : {}),
  };
  const podNetns: DesiredNetns = {
    links: {
      [attachment.key.ifname]: {
        kind: 'veth',
        peer: host,
        mac: attachment.podMac,
        mtuBytes: attachment.mtuBytes,
        up: true,
        addresses: {
          present: attachment.addresses.map(({ ip, prefixLength }) =>
            makeAddress({ ip, prefixLength }),
          ),
          others: 'keep',
        },
      },
    },
    // Without duplicate address detection every address of the pod can be used as soon as ADD returns.
    ...(v6
      ? {
          sysctls: {
            [linkSysctlKey(6, attachment.key.ifname, 'disable_ipv6')]: '0',
            [linkSysctlKey(6, attachment.key.ifname, 'accept_dad')]: '0',
          },
        }
      : {}),
    routes: { present: podRoutes(attachment), others: 'keep' },
  };
  return { [HOST_NETNS]: hostNetns, [attachment.netns]: podNetns };
}

/** What others still need of the objects that attachments share. */
export interface SharedUse {
  /** Does another attachment use the bridge? */
  readonly bridge: boolean;
  /** Addresses that ADD put on a bridge which is not ours, and that no other attachment needs. */
  readonly spareGateways: readonly Ip[];
  /** Subnets whose masquerade chain no other attachment needs. */
  readonly unusedSubnets: readonly Prefix[];
  /** Does another attachment use our table? */
  readonly table: boolean;
}

/** Is the link with the name of the host end the one that ADD makes? Before it has its mark, it is known by its MAC address. */
export function isOwnEnd({ hostMac }: Attachment, end: Link): boolean {
  return isOurs(end) || (end.kind === 'veth' && end.mac === hostMac);
}

/** What becomes of the bridge when the attachment goes; undefined when nothing does. */
function bridgeWithout(
  attachment: Attachment,
  observed: Host,
  use: SharedUse,
): DesiredLink | undefined {
  const bridge = findLink(observed, bridgeRef(attachment));
  if (bridge?.kind !== 'bridge') return undefined;
  if (!use.bridge && isOurBridge(attachment, bridge)) return 'absent';
  const gateways = gatewayAddresses(attachment).filter(({ ip }) => use.spareGateways.includes(ip));
  const spare = bridge.addresses.filter((a) => gateways.some((gateway) => sameAddress(gateway, a)));
  if (spare.length === 0) return undefined;
  return { kind: 'any', addresses: { present: [], absent: spare, others: 'keep' } };
}

/** What is to go: everything of an attachment, or what it shares with others, of which it made nothing itself. */
export type Departing = 'attachment' | 'shared objects';

/** What a host has to be once the attachment is gone: without its own objects, and without shared ones that nobody else uses. */
export function detached(
  attachment: Attachment,
  observed: Host,
  use: SharedUse,
  departing: Departing,
): DesiredHost {
  const end = departing === 'attachment' ? findLink(observed, hostEnd(attachment)) : undefined;
  const bridge = bridgeWithout(attachment, observed, use);
  const links: Record<string, DesiredLink> = {
    ...(end && isOwnEnd(attachment, end) ? { [attachment.hostIfname]: 'absent' } : {}),
    ...(bridge === undefined ? {} : { [attachment.bridge]: bridge }),
  };
  const table = findNetns(observed, HOST_NETNS)?.nftables[TABLE_KEY];
  const tables =
    attachment.masquerade && table
      ? {
          tables: {
            [TABLE_KEY]: use.table
              ? withoutMasquerade(
                  departing === 'attachment' ? attachment.addresses : [],
                  use.unusedSubnets,
                )
              : ('absent' as const),
          },
        }
      : {};
  return { [HOST_NETNS]: { links, ...tables } };
}

/** The subnets an attachment masquerades, none when it does not. */
export function masqueradedSubnets(attachment: Attachment): Prefix[] {
  return attachment.masquerade ? subnetsOf(attachment) : [];
}
