/** Telling that another table may drop what an attachment needs to be forwarded. */
import { HOST_NETNS } from '../../model/host.ts';
import type { Plan } from '../../model/plan.ts';
import type { Attachment } from '../attachment.ts';
import { droppingChains } from '../forward.ts';
import { familiesOf, hearingLink, isForwarded } from '../network.ts';
import { TABLE } from '../table.ts';
import type { CallContext } from './context.ts';

/** Writes into the log each chain of somebody else's that drops what none of its rules lets through. Nothing fails by it: a rule may let the pods through. */
export function warnOfDrops(context: CallContext, attachment: Attachment): void {
  if (!isForwarded(attachment) || attachment.adoptForward) return;
  const { containerId, network, ifname } = attachment.key;
  for (const chain of chainsFor(context, attachment))
    context.log(
      'warn',
      `${chain} drops what is forwarded and none of its rules lets through: pods behind ${hearingLink(attachment)} may reach nobody else; "adoptForward": true puts a rule for them there`,
      { container: containerId, network, ifname },
    );
}

/** Those chains; none when the kernel cannot be asked, since what was done is done. */
function chainsFor(context: CallContext, attachment: Attachment): string[] {
  try {
    const observed = context.backend.observe({
      [HOST_NETNS]: { links: [], routes: 'none', sysctls: [], nftables: [], forwardChains: true },
    });
    return droppingChains(observed, familiesOf(attachment));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    context.log('warn', `chains that may drop what is forwarded were not looked at: ${reason}`);
    return [];
  }
}

/** Does a plan make the first attachment of a node? Our table comes with it. */
export function isFirst({ ops }: Plan): boolean {
  return ops.some(
    (op) =>
      op.op === 'nft.batch' &&
      op.commands.some(
        (command) =>
          command.do === 'add table' &&
          command.family === TABLE.family &&
          command.table === TABLE.table,
      ),
  );
}
