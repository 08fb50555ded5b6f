/** Pods that do not reach whom they are to reach: a packet is sent for each question, and whoever is to blame is named as `trace` names him. */
import { type Journey, travel } from '../journey.ts';
import type { LegacyTables } from '../legacy-table.ts';
import { type Verdict, formatVerdict } from '../trace.ts';
import { makeWorld } from '../world.ts';
import { type HostFinding, shortened } from './finding.ts';
import type { Look } from './look.ts';
import { type Question, formatQuestion, questionsOf } from './questions.ts';

/** A question with what became of it. */
export interface Answered {
  readonly question: Question;
  readonly journey: Journey;
}

/** Asks everything that the pods of a host are to reach. */
export function askAll(look: Look, legacyTables: LegacyTables = {}): Answered[] {
  const world = makeWorld(look.host, legacyTables);
  return questionsOf(look).map((question) => {
    const { from, source, destination } = question;
    return { question, journey: travel(world, { netns: from.netns, source, destination }) };
  });
}

/** The loss that is the reason for all others. */
function rootOf(verdict: Verdict & { readonly kind: 'dropped' }): typeof verdict {
  return verdict.because ? rootOf(verdict.because) : verdict;
}

/**
 * Is it a loss that nobody can have wanted? A rule that drops was written by somebody, and so was a policy for what is to come in;
 * a policy that drops what is forwarded is often that of another program, which knows nothing of these pods.
 */
function isFault(verdict: Verdict & { readonly kind: 'dropped' }): boolean {
  const { reason, text, lookedUp } = rootOf(verdict);
  if (reason === 'NETFILTER_DROP')
    return text.startsWith('forward: ') && lookedUp?.kind === 'chain' && lookedUp.rule === null;
  return !['BRIDGE_ISOLATED', 'ECHO_IGNORED', 'NO_SOCKET', 'STEP_LIMIT'].includes(reason);
}

interface Lost {
  readonly finding: Omit<HostFinding, 'evidence'>;
  readonly lines: string[];
}

/** What is to blame for each question that is lost, once for all of them. */
export function unreachablePods(answered: readonly Answered[]): HostFinding[] {
  const found = new Map<string, Lost>();
  for (const { question, journey } of answered) {
    const { verdict, cause } = journey;
    if (verdict.kind !== 'dropped' || !cause || !isFault(verdict)) continue;
    const { netns, object, mend } = cause;
    const text = cause.text.replace(/^drops it/, 'drops what is forwarded for pods');
    const line = `${formatQuestion(question)}: ${formatVerdict(rootOf(verdict))}`;
    const known = found.get(`${netns}\n${object}`);
    if (known) known.lines.push(line);
    else
      found.set(`${netns}\n${object}`, {
        finding: { severity: 'error', kind: 'reachability', netns, object, text, mend },
        lines: [line],
      });
  }
  return [...found.values()].map(({ finding, lines }) => ({
    ...finding,
    evidence: shortened(lines),
  }));
}
