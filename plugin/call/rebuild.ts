/** Records of a state file that was lost, made of what the kernel's own objects say: links carry their alias, elements their comment. */
import { sameJson } from '../../model/canonical.ts';
import { HOST_NETNS, type Host, findLink, getNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { ADDRESS_BITS, type Ip, familyOf, findIp } from '../../model/ip.ts';
import { type Link, OWNER_MARK, isOurs } from '../../model/link.ts';
import { ZERO_MAC } from '../../model/mac.ts';
import { type SetElement, tableKey } from '../../model/nftables.ts';
import { type Prefix, findPrefixedIp, prefixContains, prefixOf } from '../../model/prefix.ts';
import { joiningVlans, pvidOf } from '../../model/vlan.ts';
import {
  type Attachment,
  type Identity,
  formatKey,
  usualBridgeMac,
  usualEnds,
} from '../attachment.ts';
import { limitsIn } from '../bandwidth.ts';
import { DEFAULT_BRIDGE } from '../bridge.ts';
import type { AttachmentKey } from '../cni/request.ts';
import { isAdoptedIn } from '../forward.ts';
import { SOURCE_MAPS, leadsFromLocalhost, portsIn, subnetOfSourceChain } from '../host-port.ts';
import { policedLink, policyIn } from '../ingress-policy.ts';
import type { AllocatedAddress } from '../ipam/allocate.ts';
import { MASQUERADE_MAPS, subnetOfChain } from '../masquerade.ts';
import { WHOLE_SCOPE_IN_DETAIL, detachScope, hearingLink, localnetKey } from '../network.ts';
import { POD_MAPS } from '../pod-map.ts';
import { checksIn, spoofTable } from '../spoof-check.ts';
import type { SharedObject } from '../state.ts';
import { TABLE_KEY, commentOf } from '../table.ts';
import { gatewayIfname, gatewayRef } from '../vlan.ts';
import type { CallContext } from './context.ts';
import { localhostObject, usesOf } from './usage.ts';

/** The attachment that an alias of ours names; undefined for any other, and for one that was cut. */
function keyOf({ alias }: Link): AttachmentKey | undefined {
  if (!alias.startsWith(`${OWNER_MARK} `)) return undefined;
  const [network, containerId, ifname, ...more] = alias.slice(OWNER_MARK.length + 1).split('/');
  if (!network || !containerId || !ifname || more.length > 0) return undefined;
  return { network, containerId, ifname: ifname as Ifname };
}

function elementsOf(
  observed: Host,
  maps: Readonly<Record<4 | 6, string>>,
  key: AttachmentKey,
): SetElement[] {
  const sets = getNetns(observed, HOST_NETNS).nftables[TABLE_KEY]?.sets ?? {};
  const comment = commentOf(key);
  return [maps[4], maps[6]].flatMap((name) =>
    Object.values(sets[name]?.elements ?? {}).filter((element) => element.comment === comment),
  );
}

/** The subnet of an address: that of the gateway's address beside it, else that of its masquerade chain, else itself. */
function addressOf(
  ip: Ip,
  carrier: Link | undefined,
  subnet: Prefix | undefined,
): AllocatedAddress {
  const gateway = carrier?.addresses.find((a) =>
    prefixContains(prefixOf(a.ip, a.prefixLength), ip),
  );
  if (gateway) return { ip, prefixLength: gateway.prefixLength, gateway: gateway.ip };
  const known = subnet === undefined ? undefined : findPrefixedIp(subnet);
  const prefixLength = known?.prefixLength ?? ADDRESS_BITS[familyOf(ip)];
  return { ip, prefixLength, gateway: null };
}

/** Has the link a gateway for each of these? */
function isBeside({ addresses }: Link, ips: ReadonlySet<Ip>): boolean {
  return (
    ips.size > 0 &&
    [...ips].every((ip) =>
      addresses.some((a) => prefixContains(prefixOf(a.ip, a.prefixLength), ip)),
    )
  );
}

/**
 * The VLANs of a port of a bridge that filters, unless they are just those that the bridge puts every port in; with the
 * link of their gateways where that is in the subnets of all of the pod's addresses. A network without VLANs on a bridge on which
 * another has the VLAN that every port is in is taken for one of that: their ports are alike.
 */
function vlansOn(
  observed: Host,
  bridge: Link | undefined,
  link: Link,
  ips: ReadonlySet<Ip>,
): Pick<Attachment, 'vlans'> {
  const ranges = link.port?.vlans;
  if (!ranges || bridge?.kind !== 'bridge' || bridge.vlans?.filtering !== true) return {};
  const at = (ifname: Ifname): Link | undefined =>
    findLink(observed, { netns: HOST_NETNS, ifname });
  const native = pvidOf(ranges);
  const end = native === undefined ? undefined : at(gatewayIfname(bridge.ifname, native));
  const port = end?.kind === 'veth' && end.peer ? at(end.peer.ifname) : undefined;
  if (end?.mac && port?.mac && port.port?.master === bridge.ifname && isBeside(end, ips)) {
    const gateway = {
      ifname: end.ifname,
      mac: end.mac,
      portIfname: port.ifname,
      portMac: port.mac,
    };
    return { vlans: { ranges, gateway } };
  }
  return sameJson(ranges, joiningVlans(bridge.vlans)) ? {} : { vlans: { ranges } };
}

function attachmentOf(
  identity: Identity,
  observed: Host,
  link: Link,
  key: AttachmentKey,
): Attachment {
  const master = link.port?.master;
  const bridge =
    master === undefined ? undefined : findLink(observed, { netns: HOST_NETNS, ifname: master });
  const [pods, masqueraded] = [
    elementsOf(observed, POD_MAPS, key),
    elementsOf(observed, MASQUERADE_MAPS, key),
  ];
  const replaced = elementsOf(observed, SOURCE_MAPS, key);
  const subnets = new Map<string, Prefix>(
    [...masqueraded, ...replaced].flatMap(({ key: ip, verdict }) => {
      const chain = verdict !== null && 'chain' in verdict ? verdict.chain : '';
      const subnet = subnetOfChain(chain) ?? subnetOfSourceChain(chain);
      return subnet === undefined ? [] : [[ip, subnet] as const];
    }),
  );
  const ips = new Set([...pods, ...masqueraded].flatMap((element) => findIp(element.key) ?? []));
  const vlans = vlansOn(observed, bridge, link, ips);
  const carrier = master && findLink(observed, gatewayRef({ bridge: master, ...vlans }));
  const addresses = [...ips].map((ip): AllocatedAddress => {
    const subnet = subnets.get(ip);
    if (master !== undefined) return addressOf(ip, carrier || undefined, subnet);
    const gateways = link.addresses.filter((a) => familyOf(a.ip) === familyOf(ip));
    const own =
      gateways.find((a) => subnet !== undefined && prefixContains(subnet, a.ip)) ?? gateways[0];
    return {
      ip,
      prefixLength: ADDRESS_BITS[familyOf(ip)],
      gateway: own?.ip ?? null,
      ...(subnet === undefined ? {} : { subnet }),
    };
  });
  const { nftables } = getNetns(observed, HOST_NETNS);
  const table = nftables[tableKey(spoofTable(master === undefined ? { mode: 'ptp' } : {}))];
  const checks = table ? checksIn(table, link.ifname, commentOf(key)) : {};
  const hostPorts = portsIn(nftables[TABLE_KEY] ?? { sets: {}, chains: {} }, commentOf(key));
  const hearing =
    master === undefined ? link.ifname : gatewayRef({ bridge: master, ...vlans }).ifname;
  const isDropped = pods.some(({ verdict }) => verdict?.verdict === 'drop');
  return {
    key,
    netns: '',
    ...(master === undefined ? { mode: 'ptp' as const } : {}),
    bridge: master ?? DEFAULT_BRIDGE,
    // Not that of the bridge: by it somebody else's would be taken for ours, and go with the last pod.
    bridgeMac: usualBridgeMac(identity, master ?? DEFAULT_BRIDGE),
    promiscuous: bridge?.promiscuous ?? false,
    hostIfname: link.ifname,
    hostMac: link.mac ?? ZERO_MAC,
    podMac: usualEnds(identity, key).podMac,
    mtuBytes: link.mtuBytes,
    hairpin: link.port?.hairpin ?? false,
    ...(link.port?.isolated ? { isolated: true as const } : {}),
    ...vlans,
    ...limitsIn(observed, link.ifname),
    gateway: master !== undefined && addresses.some(({ gateway }) => gateway !== null),
    forceAddress: false,
    masquerade: masqueraded.length > 0,
    ...(pods.length > 0 ? { verdict: isDropped ? ('drop' as const) : ('accept' as const) } : {}),
    ...(hostPorts ? { hostPorts } : {}),
    ...(isAdoptedIn(observed, hearing) ? { adoptForward: true as const } : {}),
    ...(master === undefined
      ? {}
      : policyIn(nftables[TABLE_KEY] ?? { sets: {} }, policedLink({ bridge: master, ...vlans }))),
    ...checks,
    addresses,
    routes: [],
  };
}

/**
 * What ADD did to a link that leads to pods and DEL has to undo: the door to 127.0.0.0/8, of a link of ours. Whether it was
 * us who opened somebody else's, nothing tells.
 */
function claimsOf(context: CallContext, attachment: Attachment): SharedObject[] {
  if (!leadsFromLocalhost(attachment)) return [];
  const { links, sysctls } = getNetns(context.backend.observe(detachScope(attachment)), HOST_NETNS);
  const link = links[hearingLink(attachment)];
  const isOpen = sysctls[localnetKey(attachment)] === '1';
  return isOpen && link && isOurs(link) ? [localhostObject(attachment)] : [];
}

/** Writes a record for each attachment that the kernel tells of and nobody has recorded, and answers their names. */
export function rebuild(context: CallContext): string[] {
  const observed = context.backend.observe(WHOLE_SCOPE_IN_DETAIL);
  const names: string[] = [];
  for (const link of Object.values(getNetns(observed, HOST_NETNS).links)) {
    const key = keyOf(link);
    if (link.kind !== 'veth' || !key || context.state.find(key)) continue;
    const attachment = attachmentOf(context.identity, observed, link, key);
    context.state.transact(() => {
      context.state.put(attachment, context.worker, usesOf(attachment));
      context.state.finish(key);
      for (const object of claimsOf(context, attachment)) context.state.claim(object);
    });
    names.push(formatKey(key));
  }
  return names;
}
