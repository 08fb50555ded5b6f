/** Chains that drop packets. */
import { within } from '../cause.ts';
import type { Blame, Dropped } from './blame.ts';
import { ofPacket } from './packet.ts';

/** A chain that drops by a rule or by its policy. */
export function ofChain(verdict: Dropped): Blame {
  const { netns, text, lookedUp } = verdict;
  if (lookedUp?.kind !== 'chain') return ofPacket(verdict);
  const { family, table, chain, rule } = lookedUp;
  const place = `${family} ${table} ${chain}`;
  const decided = text.replace(/^\w+: /, '');
  return {
    object: `chain ${place}`,
    text:
      rule === null
        ? 'drops it: its policy is drop'
        : `drops it by its rule ${rule}: ${decided.replace(/^rule \d+ of chain [^,]*, /, '')}`,
    mend: [within(netns, `nft -a list chain ${place}`)],
  };
}
