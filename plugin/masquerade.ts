/**
 * Masquerade of what pods send out of their subnet: one element per pod in a verdict map, one chain per
 * subnet. Rules do not change as pods come and go, and a packet costs one look-up.
 */
import { type Family, familyOf } from '../model/ip.ts';
import type { Chain, SetElement } from '../model/nftables.ts';
import { type Prefix, findPrefixedIp, prefixOf } from '../model/prefix.ts';
import type { Attachment } from './attachment.ts';
import { type AllocatedAddress, subnetOf } from './ipam/allocate.ts';
import { type TablePart, addressMaps, commentOf, rule } from './table.ts';

/** The maps from a pod's address to the chain of its subnet. */
export const MASQUERADE_MAPS: Readonly<Record<Family, string>> = { 4: 'masq4', 6: 'masq6' };

const BASE_CHAIN = 'postrouting';

/** NF_IP_PRI_NAT_SRC, which nft calls srcnat. */
const SRCNAT_PRIORITY = 100;

/** The name of a subnet's chain: nft names take neither `/` nor `:` unquoted everywhere, so they are replaced. */
function chainOf(prefix: Prefix): string {
  return `masq-${prefix.replaceAll(':', '_').replace('/', '-')}`;
}

/** The subnet of a chain by its name, undefined for other chains. */
export function subnetOfChain(name: string): Prefix | undefined {
  const text = /^masq-(.+)-(\d+)$/.exec(name);
  const prefixed = text && findPrefixedIp(`${text[1]?.replaceAll('_', ':')}/${text[2]}`);
  return prefixed ? prefixOf(prefixed.ip, prefixed.prefixLength) : undefined;
}

/** What stays on the subnet or goes to many is not masqueraded; the rest is. */
function subnetChain(prefix: Prefix): Chain {
  const family = familyOf(prefix);
  const field = family === 4 ? 'ip daddr' : 'ip6 daddr';
  const multicast = (family === 4 ? '224.0.0.0/4' : 'ff00::/8') as Prefix;
  const leave = (value: Prefix) =>
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
    rule({ kind: 'vmap', field: 'ip saddr', map: MASQUERADE_MAPS[4] }),
    rule({ kind: 'vmap', field: 'ip6 saddr', map: MASQUERADE_MAPS[6] }),
  ],
};

function elementOf(attachment: Attachment, address: AllocatedAddress): SetElement {
  return {
    key: address.ip,
    verdict: { verdict: 'goto', chain: chainOf(subnetOf(address)) },
    comment: commentOf(attachment.key),
  };
}

/** The subnets that an attachment masquerades, none when it does not. */
export function masqueradedSubnets({ masquerade, addresses }: Attachment): Prefix[] {
  return masquerade ? [...new Set(addresses.map(subnetOf))] : [];
}

/** What masquerades an attachment's packets. */
export function masqueradePart(attachment: Attachment): TablePart {
  const chains = [BASE, ...masqueradedSubnets(attachment).map(subnetChain)];
  return {
    chains: Object.fromEntries(chains.map((chain) => [chain.name, chain])),
    sets: addressMaps(
      MASQUERADE_MAPS,
      attachment.addresses.map((address) => [address.ip, elementOf(attachment, address)] as const),
    ),
  };
}

/**
 * The same without these addresses, and without the chains of `unused` subnets; where nobody masquerades any more,
 * without all of it.
 */
export function withoutMasquerade(
  addresses: Attachment['addresses'],
  unused: readonly Prefix[],
  others: 'others masquerade' | 'nobody else does',
): TablePart {
  const chains = Object.fromEntries(unused.map((prefix) => [chainOf(prefix), 'absent' as const]));
  if (others === 'nobody else does')
    return {
      chains: { ...chains, [BASE_CHAIN]: 'absent' },
      sets: { [MASQUERADE_MAPS[4]]: 'absent', [MASQUERADE_MAPS[6]]: 'absent' },
    };
  return {
    chains,
    sets: addressMaps(
      MASQUERADE_MAPS,
      addresses.map(({ ip }) => [ip, 'absent'] as const),
    ),
  };
}
