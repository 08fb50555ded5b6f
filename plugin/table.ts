/** Our nftables table in the host's netns: parts of it, put together. Everything in it is ours. */
import type { DesiredSet, DesiredTable } from '../model/desired.ts';
import { type Family, type Ip, familyOf } from '../model/ip.ts';
import { OWNER_MARK } from '../model/link.ts';
import {
  type Chain,
  type Rule,
  type SetElement,
  type Statement,
  tableKey,
} from '../model/nftables.ts';
import { formatKey } from './attachment.ts';
import type { AttachmentKey } from './cni/request.ts';

/** The table of what is routed. */
export const TABLE = { family: 'inet', table: OWNER_MARK } as const;
export const TABLE_KEY = tableKey(TABLE);

/** The table of what is bridged. */
export const BRIDGE_TABLE = { family: 'bridge', table: OWNER_MARK } as const;

/** All tables that we make. */
export const OWN_TABLES = [TABLE, BRIDGE_TABLE] as const;

/** Chains and sets that serve one purpose. Elements and chains that are not named stay. */
export interface TablePart {
  readonly chains: Readonly<Record<string, Chain | 'absent'>>;
  readonly sets: Readonly<Record<string, DesiredSet | 'absent'>>;
}

/** A table that holds these parts beside what is in it. */
export function tableOf(
  { family, table }: { readonly family: DesiredTable['family']; readonly table: string },
  parts: readonly TablePart[],
): DesiredTable {
  return {
    family,
    name: table,
    chains: Object.assign({}, ...parts.map(({ chains }) => chains)) as TablePart['chains'],
    sets: Object.assign({}, ...parts.map(({ sets }) => sets)) as TablePart['sets'],
    others: 'keep',
  };
}

/** nft's limit for a comment (NFTNL_UDATA_COMMENT_MAXLEN). */
const COMMENT_MAX_LENGTH = 127;

/** The comment that says whose an element is. */
export function commentOf(key: AttachmentKey): string {
  return formatKey(key).slice(0, COMMENT_MAX_LENGTH);
}

/** A rule without a comment. */
export function rule(...statements: Statement[]): Rule {
  return { statements, comment: '' };
}

/** A pair of verdict maps by address, one for each family, with these elements. */
export function addressMaps(
  names: Readonly<Record<Family, string>>,
  elements: readonly (readonly [Ip, SetElement | 'absent'])[],
): TablePart['sets'] {
  const of = (family: Family): DesiredSet => ({
    keyType: family === 4 ? 'ipv4_addr' : 'ipv6_addr',
    holds: 'verdict',
    elements: Object.fromEntries(elements.filter(([ip]) => familyOf(ip) === family)),
    others: 'keep',
  });
  return { [names[4]]: of(4), [names[6]]: of(6) };
}
