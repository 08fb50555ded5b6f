/** STATUS: could the next ADD succeed? (CNI specification, section 4, "STATUS") */
import { HOST_NETNS, findLink } from '../../model/host.ts';
import { formatPrefixedIp, prefixLengthOf } from '../../model/prefix.ts';
import { makeAttachment } from '../attachment.ts';
import { conflictingAddresses } from '../bridge.ts';
import type { Config } from '../cni/config.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { Request } from '../cni/request.ts';
import { allocate } from '../ipam/allocate.ts';
import { isUnknownVerb } from '../ipam/delegate.ts';
import { rangeSetsOf } from '../ipam/ranges.ts';
import type { CallContext } from './context.ts';
import { wholeBook } from './draft.ts';

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What somebody with nothing else in mind would be refused for, as sentences. */
function problemsOf(context: CallContext, request: Request, config: Config): string[] {
  const problems: string[] = [];
  const attempt = (work: () => void): void => {
    try {
      work();
    } catch (error) {
      problems.push(messageOf(error));
    }
  };
  for (const feature of context.backend.lacks()) problems.push(`the kernel has no ${feature}`);
  const { ipam } = config;
  attempt(() => {
    // A container of that name does not exist: nobody's addresses count as free.
    if (ipam) allocate(rangeSetsOf(ipam), wholeBook(context, request, ipam));
  });
  if (config.mode === 'bridge')
    attempt(() => {
      const ref = { netns: HOST_NETNS, ifname: config.bridge };
      const observed = context.backend.observe({
        [HOST_NETNS]: { links: [config.bridge], routes: 'none', sysctls: [], nftables: [] },
      });
      const link = findLink(observed, ref);
      if (link && link.kind !== 'bridge')
        problems.push(`link "${config.bridge}" already exists but is not a bridge`);
      if (!ipam || config.forceAddress) return;
      const gateways = rangeSetsOf(ipam).flatMap(([range]) => range ?? []);
      const attachment = makeAttachment(context.identity, {
        key: request.key,
        netns: '',
        config,
        mac: undefined,
        mtuBytes: link?.mtuBytes ?? 1500,
        addresses: gateways.map(({ gateway, subnet }) => ({
          ip: gateway,
          prefixLength: prefixLengthOf(subnet),
          gateway,
        })),
        routes: [],
        dns: undefined,
        ipam: undefined,
      });
      const [conflict] = conflictingAddresses(attachment, observed);
      if (conflict)
        problems.push(
          `bridge "${config.bridge}" already has address ${formatPrefixedIp(conflict)}, which conflicts with a gateway`,
        );
    });
  return problems;
}

/** Throws an error of code 50 that says everything that would make ADD fail; returns when nothing would. */
export function status(context: CallContext, request: Request, config: Config): void {
  const problems = problemsOf(context, request, config);
  const [first] = problems;
  if (first !== undefined)
    throw new CniError(CNI_ERROR.notAvailable, first, problems.slice(1).join('\n'));
  const { delegate } = config;
  if (delegate === null) return;
  try {
    context.delegate({
      type: delegate,
      verb: 'STATUS',
      stdin: request.stdin,
      key: undefined,
      netns: '',
    });
  } catch (error) {
    // Older plugins cannot say.
    if (!isUnknownVerb(error)) throw error;
  }
}
