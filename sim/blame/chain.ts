/** Chains that drop packets. */
import type { Host } from '../../model/host.ts';
import type { Blame, Dropped } from './blame.ts';
import { listChain } from './list-chain.ts';
import { ofPacket } from './packet.ts';

/** A chain that drops by a rule or by its policy. */
export function ofChain(host: Host, verdict: Dropped): Blame {
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
    mend: [listChain(host, netns, lookedUp)],
  };
}
