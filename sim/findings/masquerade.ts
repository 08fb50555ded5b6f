/** Masquerading of what pods of one segment send each other, who then no longer see from whom it comes. */
import type { Host } from '../../model/host.ts';
import { listChain } from '../blame/list-chain.ts';
import type { Hop } from '../trace.ts';
import { type HostFinding, shortened } from './finding.ts';
import type { Look } from './look.ts';
import type { Answered } from './reachability.ts';

/** From whom the pod that was asked saw it come. */
function sourceSeen(hops: readonly Hop[], netns: string): string | undefined {
  const hop = hops.findLast((each) => each.netns === netns && each.stage === 'deliver');
  return hop?.data.kind === 'ip' ? hop.data.source : undefined;
}

/** The chain that said so: the last one that was asked before the source is another. */
function translatingChain(hops: readonly Hop[], source: string): Hop | undefined {
  const isOther = ({ data }: Hop): boolean =>
    data.kind === 'ip' && data.message.kind === 'echo request' && data.source !== source;
  const first = hops.findIndex((hop) => hop.stage === 'netfilter' && isOther(hop));
  return hops
    .slice(0, Math.max(first, 0))
    .findLast(({ stage, lookedUp }) => stage === 'netfilter' && lookedUp?.kind === 'chain');
}

function masquerades(host: Host, { question, journey }: Answered): HostFinding | undefined {
  const { to, source, destination, isNear } = question;
  if (!to || !isNear) return undefined;
  const seenAs = sourceSeen(journey.forward, to.netns);
  if (seenAs === undefined || seenAs === source) return undefined;
  const hop = translatingChain(journey.forward, source);
  if (hop?.lookedUp?.kind !== 'chain') return undefined;
  const { family, table, chain, rule } = hop.lookedUp;
  const name = `${family} ${table} ${chain}`;
  return {
    severity: 'warning',
    kind: 'masquerade',
    netns: hop.netns,
    object: `chain ${name}`,
    text: `masquerades what pods of one segment send each other${rule === null ? '' : `, by its rule ${rule}`}`,
    evidence: [
      `netns ${question.from.netns}: ${source} asks ${destination} in netns ${to.netns}, which sees ${seenAs}`,
    ],
    mend: [listChain(host, hop.netns, hop.lookedUp)],
  };
}

/** Chains that give what pods of one segment send each other the source address of their node. */
export function masqueradedPods({ host }: Look, answered: readonly Answered[]): HostFinding[] {
  const found = new Map<string, HostFinding[]>();
  for (const each of answered) {
    const finding = masquerades(host, each);
    if (!finding) continue;
    const key = `${finding.netns}\n${finding.object}`;
    found.set(key, [...(found.get(key) ?? []), finding]);
  }
  return [...found.values()].flatMap((same) =>
    same.slice(0, 1).map((first) => ({
      ...first,
      evidence: shortened(same.flatMap(({ evidence }) => evidence)),
    })),
  );
}
