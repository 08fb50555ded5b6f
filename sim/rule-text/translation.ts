/** Where packets are sent, and how they are rejected, in the words of nft (nftables: src/statement.c). */
import type { Family } from '../../model/ip.ts';
import type { NftFamily } from '../../model/nftables.ts';
import { ADDRESS, NETWORK, type ValueType, rangeText } from './value.ts';

/** How what a map holds for a translation reads: an address, both ends of some, or one with a port. */
export function targetType(addressBytes: number, hasPort: boolean): ValueType {
  return {
    text: (data) => {
      const [first, rest] = [data.slice(0, addressBytes * 2), data.slice(addressBytes * 2)];
      if (rest === '') return ADDRESS.text(first);
      if (!hasPort) return rangeText(ADDRESS, first, rest);
      return `${ADDRESS.text(first)} . ${NETWORK.text(rest.slice(0, 4))}`;
    },
  };
}

/** Addresses of IPv6 in front of a port. */
export const BRACKETED: ValueType = {
  text: (value) => `[${ADDRESS.text(value)}]`,
  between: (first, last) => {
    const prefix = ADDRESS.between?.(first, last);
    return prefix === undefined ? undefined : `[${prefix}]`;
  },
};

/** Of which family an address is, in front of it. */
export function familyWord(family: Family): string {
  return family === 4 ? 'ip ' : 'ip6 ';
}

/** Codes that nft calls otherwise. */
const CODES: Readonly<Record<string, string>> = { 'proto-unreachable': 'prot-unreachable' };

/** In packets of which protocol an answer of this kind is one. */
const KINDS: Readonly<Record<string, string>> = { icmp: 'ip', icmpv6: 'ip6' };

/** Is it a table of one family of addresses? */
export function isOfOne(family: NftFamily): boolean {
  return family === 'ip' || family === 'ip6';
}

/**
 * What the sender of a packet is told, of those answers that one of this protocol can have; `isOwn`: that protocol is said by it. What
 * is usual nft does not say.
 */
export function rejectText(
  answer: string,
  family: NftFamily,
  protocol: string | undefined,
): { readonly text: string; readonly isOwn: boolean } {
  if (answer === 'tcp reset') return { text: 'reject with tcp reset', isOwn: false };
  const answers = answer.split(' or ').map((each) => each.split(' '));
  const own = answers.filter(([kind = '']) => KINDS[kind] === protocol);
  const isOwn = own.length === 1 && protocol !== undefined;
  const said = (isOwn ? own : answers).map(([kind, code = '']) => `${kind} ${CODES[code] ?? code}`);
  const isUsual =
    answer === 'icmpx port-unreachable' ||
    (isOfOne(family) && answer.endsWith(' port-unreachable'));
  return { text: isUsual ? 'reject' : `reject with ${said.join(' or ')}`, isOwn };
}
