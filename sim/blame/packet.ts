/** Ends for which nobody is to blame but the packet itself, or the network as a whole. */
import { explainReason } from '../reason.ts';
import type { Blame, Dropped } from './blame.ts';

/** `EINVAL: fe80::1 is on which link?`, with the number of the error behind. */
function withErrorBehind(text: string): string {
  return text.replace(/^(E[A-Z]+): (.+)$/, '$2 ($1)');
}

/** An end as its reason tells it. */
export function ofPacket({ reason, link, text }: Dropped): Blame {
  const [what, end] = explainReason(reason);
  const why = withErrorBehind(text);
  if (what === 'link' && link !== null)
    return { object: `link ${link}`, text: `${end}: ${why}`, mend: [] };
  const where = link === null ? '' : ` at link ${link}`;
  return { object: what === 'link' ? 'packet' : what, text: `${end}${where}: ${why}`, mend: [] };
}
