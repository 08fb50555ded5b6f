/**
 * What a pod may say that it is: frames with another MAC address (`macspoofchk`) and packets from other addresses
 * (`ipspoofchk`) are dropped where they come in. Sets of what each host end may send; rules that never change.
 */
import { linkLocalOf } from '../model/connected.ts';
import type { DesiredSet } from '../model/desired.ts';
import type { Ifname } from '../model/ifname.ts';
import { type Ip, familyOf, ipBytes, ipFromBytes } from '../model/ip.ts';
import { findMac, macBytes, macFromBytes } from '../model/mac.ts';
import {
  type Chain,
  type LookupField,
  type Rule,
  type SetKey,
  type SetKeyType,
  type Table,
} from '../model/nftables.ts';
import type { Attachment } from './attachment.ts';
import { BRIDGE_TABLE, TABLE, type TablePart, commentOf, rule } from './table.ts';

/** NF_IP_PRI_RAW, before connection tracking; in the family bridge NF_BR_PRI_NAT_DST_BRIDGED. */
const PRIORITY = -300;

const MAC_CHECKED = 'macspoofchk';
const IP_CHECKED = 'ipspoofchk';
const KEY_TYPES: Readonly<Record<string, SetKeyType>> = {
  [MAC_CHECKED]: 'ifname',
  [IP_CHECKED]: 'ifname',
  macs: 'ifname . ether_addr',
  ips4: 'ifname . ipv4_addr',
  ips6: 'ifname . ipv6_addr',
};

/** Drops what a host end sends that is checked and whose field is not among what it may send. */
function dropOthers(checked: string, field: LookupField, allowed: string): Rule {
  return rule(
    { kind: 'lookup', field: 'iifname', negate: false, set: checked },
    { kind: 'lookup', field, negate: true, set: allowed },
    { kind: 'verdict', verdict: 'drop' },
  );
}

const IP_RULES = [
  dropOthers(IP_CHECKED, 'iifname . ip saddr', 'ips4'),
  dropOthers(IP_CHECKED, 'iifname . ip6 saddr', 'ips6'),
];

/** ARP tells two addresses of the sender more than the frame does. */
const FRAME_RULES = [
  dropOthers(MAC_CHECKED, 'iifname . ether saddr', 'macs'),
  dropOthers(MAC_CHECKED, 'iifname . arp saddr ether', 'macs'),
  ...IP_RULES,
  dropOthers(IP_CHECKED, 'iifname . arp saddr ip', 'ips4'),
];

const CHAIN = 'spoof-check';

function chain(rules: readonly Rule[]): Chain {
  const hook = {
    type: 'filter',
    hook: 'prerouting',
    priority: PRIORITY,
    policy: 'accept',
  } as const;
  return { name: CHAIN, hook, rules };
}

/** Is something of what the pod sends checked? */
export function isChecked(attachment: Attachment): boolean {
  return attachment.macSpoofCheck === true || attachment.ipSpoofCheck === true;
}

/** The table that checks: where pods are on a bridge that of frames, else that of packets. */
export function spoofTable({ mode }: Pick<Attachment, 'mode'>): typeof BRIDGE_TABLE | typeof TABLE {
  return mode === 'ptp' ? TABLE : BRIDGE_TABLE;
}

/** What a pod may send from beside its own addresses: before it has one it asks from none, and IPv6 speaks on the link from one made of the MAC. */
function alwaysAllowed({ podMac }: Attachment): Ip[] {
  return ['0.0.0.0' as Ip, '::' as Ip, ipFromBytes(linkLocalOf(macBytes(podMac)))];
}

function pair(ifname: Ifname, value: Ip | Attachment['podMac']): SetKey {
  return `${ifname} . ${value}`;
}

/** The keys of an attachment in each set. */
export function spoofKeys(attachment: Attachment): Readonly<Record<string, readonly SetKey[]>> {
  const { hostIfname, podMac, addresses, macSpoofCheck, ipSpoofCheck, mode } = attachment;
  const ips = [...addresses.map(({ ip }) => ip), ...alwaysAllowed(attachment)];
  const ipKeys = (family: 4 | 6): SetKey[] =>
    ips.filter((ip) => familyOf(ip) === family).map((ip) => pair(hostIfname, ip));
  const ofMac = {
    [MAC_CHECKED]: macSpoofCheck ? [hostIfname] : [],
    macs: macSpoofCheck ? [pair(hostIfname, podMac)] : [],
  };
  return {
    ...(mode === 'ptp' ? {} : ofMac),
    [IP_CHECKED]: ipSpoofCheck ? [hostIfname] : [],
    ips4: ipSpoofCheck ? ipKeys(4) : [],
    ips6: ipSpoofCheck ? ipKeys(6) : [],
  };
}

function setsOf(
  attachment: Attachment,
  element: (key: SetKey) => DesiredSet['elements'][string],
): Record<string, DesiredSet> {
  return Object.fromEntries(
    Object.entries(spoofKeys(attachment)).map(([name, keys]) => [
      name,
      {
        keyType: KEY_TYPES[name] as SetKeyType,
        holds: 'nothing' as const,
        elements: Object.fromEntries(keys.map((key) => [key, element(key)])),
        others: 'keep' as const,
      },
    ]),
  );
}

/** What is checked of the attachment whose elements carry `comment`, and its MAC address as far as they tell it. */
export function checksIn(
  { sets }: Pick<Table, 'sets'>,
  hostIfname: Ifname,
  comment: string,
): Partial<Pick<Attachment, 'macSpoofCheck' | 'ipSpoofCheck' | 'podMac'>> {
  const keys = (set: string): SetKey[] =>
    Object.values(sets[set]?.elements ?? {})
      .filter((element) => element.comment === comment)
      .map(({ key }) => key);
  const values = (set: string): string[] =>
    keys(set).map((key) => key.slice(pair(hostIfname, '' as Ip).length));
  const [mac] = [
    ...values('macs').flatMap((text) => findMac(text) ?? []),
    ...values('ips6').flatMap((text) => macOfLinkLocal(text as Ip) ?? []),
  ];
  return {
    ...(keys(MAC_CHECKED).length > 0 ? { macSpoofCheck: true as const } : {}),
    ...(keys(IP_CHECKED).length > 0 ? { ipSpoofCheck: true as const } : {}),
    ...(mac === undefined ? {} : { podMac: mac }),
  };
}

/** The MAC address that a link-local address was made of, undefined for other addresses. */
function macOfLinkLocal(ip: Ip): Attachment['podMac'] | undefined {
  if (familyOf(ip) !== 6) return undefined;
  const bytes = ipBytes(ip);
  const [a = 0, b = 0, c = 0, , , d = 0, e = 0, f = 0] = bytes.slice(8);
  const mac = Uint8Array.of(a ^ 2, b, c, d, e, f);
  return linkLocalOf(mac).every((byte, i) => byte === bytes[i]) ? macFromBytes(mac) : undefined;
}

/** What checks an attachment. */
export function spoofPart(attachment: Attachment): TablePart {
  const comment = commentOf(attachment.key);
  const { name, ...rest } = chain(attachment.mode === 'ptp' ? IP_RULES : FRAME_RULES);
  return {
    chains: { [name]: { name, ...rest } },
    sets: setsOf(attachment, (key) => ({ key, verdict: null, comment })),
  };
}

/** The same without an attachment; where nobody is checked any more, without all of it. */
export function withoutSpoof(
  attachment: Attachment,
  others: 'others are checked' | 'nobody else is',
): TablePart {
  const sets = setsOf(attachment, () => 'absent');
  if (others === 'others are checked') return { chains: {}, sets };
  return {
    chains: { [CHAIN]: 'absent' },
    sets: Object.fromEntries(Object.keys(sets).map((name) => [name, 'absent' as const])),
  };
}
