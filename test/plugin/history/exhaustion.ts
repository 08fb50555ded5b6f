/** Whether a network has addresses left, counted one by one. */
import { type Ip, ipFromBits } from '../../../model/ip.ts';
import type { RawConfig } from '../../arbitraries/configuration.ts';
import { mayHandOut, rangesIn, takenIn } from './ledger.ts';
import type { Node } from './node.ts';

/** Of larger ranges no history takes all. */
const COUNTED = 1024n;

/** Was the address given back so short a time ago that its network does not hand it out again yet? */
export function isResting({ released, machine }: Node, raw: RawConfig, ip: Ip): boolean {
  const { reuseDelaySeconds = 0 } = (raw['ipam'] ?? {}) as { readonly reuseDelaySeconds?: number };
  const at = released.get(`${String(raw['name'])} ${ip}`);
  return at !== undefined && machine.timeMs - at < reuseDelaySeconds * 1000;
}

/** Has a set of the network no address that could be handed out now? */
export function isExhausted(node: Node, raw: RawConfig): boolean {
  const sets = rangesIn(raw);
  const taken = new Set<string>(takenIn(node.machine.state, String(raw['name'])));
  return sets.some((set) =>
    set.every(({ family, first, last }) => {
      for (let bits = first; bits <= last; bits += 1n) {
        if (bits - first > COUNTED) return false;
        const ip = ipFromBits(family, bits);
        if (mayHandOut(sets, set, ip) && !taken.has(ip) && !isResting(node, raw, ip)) return false;
      }
      return true;
    }),
  );
}
