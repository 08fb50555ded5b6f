/**
 * Masquerade of what pods send out of their subnet: one table of ours, one element per pod in a verdict
 * map, one chain per subnet. Rules do not change as pods come and go, and a packet costs one look-up.
 */
import type { DesiredTable } from '../model/desired.ts';
import { type Family, type Ip, familyOf } from '../model/ip.ts';
import { OWNER_MARK } from '../model/link.ts';
import {
  type Chain,
  type Rule,
  type SetElement,
  type Statement,
  tableKey,
} from '../model/nftables.ts';
import { type Prefix, prefixOf } from '../model/prefix.ts';
import { type Attachment, formatKey } from './attachment.ts';

/** Our table: everything in it is ours. */
export const TABLE = { family: 'inet', table: OWNER_MARK } as const;
export const TABLE_KEY = tableKey(TABLE);

/** The map from a pod's address to the chain of its subnet. */
export function mapOf(family: Family): string {
  return family === 4 ? 'masq4' : 'masq6';
}

const BASE_CHAIN = 'postrouting';

/** NF_IP_PRI_NAT_SRC, which nft calls srcnat. */
const SRCNAT_PRIORITY = 100;

/** nft's limit for a comment (NFTNL_UDATA_COMMENT_MAXLEN). */
const COMMENT_MAX_LENGTH = 127;

/** The name of a subnet's chain: nft names take neither `/` nor `:` unquoted everywhere, so they are replaced. */
function chainOf(prefix: Prefix): string {
  return `masq-${prefix.replaceAll(':', '_').replace('/', '-')}`;
}

function rule(...statements: Statement[]): Rule {
  return { statements, comment: '' };
}

/** What stays on the subnet or goes to many is not masqueraded; the rest is. */
function subnetChain(prefix: Prefix): Chain {
  const family = familyOf(prefix);
  const field = family === 4 ? 'ip daddr' : 'ip6 daddr';
  const multicast = (family === 4 ? '224.0.0.0/4' : 'ff00::/8') as Prefix;
  const leave = (value: Prefix): Rule =>
    rule({ kind: 'match', field, negate: false, value }, { kind: 'verdict', verdict: 'return' });
  return {
    name: chainOf(prefix),
    hook: null,
    rules: [leave(prefix), leave(multicast), rule({ kind: 'masquerade' })],
  };
}

const BASE: Chain = {
  name: BASE_CHAIN,
  hook: { type: 'nat', hook: 'postrouting', priority: SRCNAT_PRIORITY, policy: 'accept' },
  rules: [
    rule({ kind: 'vmap', field: 'ip saddr', map: 'masq4' }),
    rule({ kind: 'vmap', field: 'ip6 saddr', map: 'masq6' }),
  ],
};

function elementOf(attachment: Attachment, ip: Ip, prefix: Prefix): SetElement {
  const comment = formatKey(attachment.key).slice(0, COMMENT_MAX_LENGTH);
  return { key: ip, verdict: { verdict: 'goto', chain: chainOf(prefix) }, comment };
}

function setsOf(elements: readonly (readonly [Ip, SetElement | 'absent'])[]): DesiredTable['sets'] {
  const of = (family: Family): Record<string, SetElement | 'absent'> =>
    Object.fromEntries(elements.filter(([ip]) => familyOf(ip) === family));
  return {
    masq4: { keyType: 'ipv4_addr', holds: 'verdict', elements: of(4), others: 'keep' },
    masq6: { keyType: 'ipv6_addr', holds: 'verdict', elements: of(6), others: 'keep' },
  };
}

/** The subnets of an attachment's addresses. */
export function subnetsOf(attachment: Attachment): Prefix[] {
  return [
    ...new Set(attachment.addresses.map(({ ip, prefixLength }) => prefixOf(ip, prefixLength))),
  ];
}

/** Our table with this attachment's addresses in it. */
export function withMasquerade(attachment: Attachment): DesiredTable {
  const chains = [BASE, ...subnetsOf(attachment).map(subnetChain)];
  const elements = attachment.addresses.map(
    ({ ip, prefixLength }) => [ip, elementOf(attachment, ip, prefixOf(ip, prefixLength))] as const,
  );
  return {
    family: TABLE.family,
    name: TABLE.table,
    chains: Object.fromEntries(chains.map((chain) => [chain.name, chain])),
    sets: setsOf(elements),
    others: 'keep',
  };
}

/** Our table without these addresses, and without the chains of `unused` subnets. */
export function withoutMasquerade(
  addresses: Attachment['addresses'],
  unused: readonly Prefix[],
): DesiredTable {
  const chains = Object.fromEntries(unused.map((prefix) => [chainOf(prefix), 'absent' as const]));
  return {
    family: TABLE.family,
    name: TABLE.table,
    chains,
    sets: setsOf(addresses.map(({ ip }) => [ip, 'absent'] as const)),
    others: 'keep',
  };
}
