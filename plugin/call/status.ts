/** STATUS: could the next ADD succeed? (CNI specification, section 4, "STATUS") */
import { HOST_NETNS, findLink } from '../../model/host.ts';
import { formatPrefixedIp, prefixLengthOf } from '../../model/prefix.ts';
import { type Attachment, makeAttachment } from '../attachment.ts';
import { bridgeVlanProblem, conflictingAddresses } from '../bridge.ts';
import type { Config } from '../cni/config.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { Request } from '../cni/request.ts';
import { allocate } from '../ipam/allocate.ts';
import { isUnknownVerb } from '../ipam/delegate.ts';
import { rangeSetsOf } from '../ipam/ranges.ts';
import { gatewayRef, rangesOf } from '../vlan.ts';
import type { CallContext } from './context.ts';
import { wholeBook } from './draft.ts';

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** An attachment as the next ADD may have to make it, with no address but the gateways'. */
function imagined(context: CallContext, request: Request, config: Config): Attachment {
  const ranges = config.ipam ? rangeSetsOf(config.ipam).flatMap(([range]) => range ?? []) : [];
  return makeAttachment(context.identity, {
    key: request.key,
    netns: '',
    config,
    mac: undefined,
    mtuBytes: 1500,
    addresses: ranges.map(({ gateway, subnet }) => ({
      ip: gateway,
      prefixLength: prefixLengthOf(subnet),
      gateway,
    })),
    routes: [],
    dns: undefined,
    ipam: undefined,
    portMappings: [],
    limits: undefined,
    tuning: undefined,
  });
}

/** Why the bridge, as it is there already, would not do. */
function bridgeProblems(context: CallContext, attachment: Attachment): string[] {
  const { bridge, vlans } = attachment;
  const carrier = gatewayRef(attachment).ifname;
  const observed = context.backend.observe({
    [HOST_NETNS]: {
      links: carrier === bridge ? [bridge] : [bridge, carrier],
      routes: 'none',
      sysctls: [],
      nftables: [],
      ...(vlans ? { vlans: true as const } : {}),
    },
  });
  const link = findLink(observed, { netns: HOST_NETNS, ifname: bridge });
  if (link && link.kind !== 'bridge')
    return [`link "${bridge}" already exists but is not a bridge`];
  const unfiltered = bridgeVlanProblem(attachment, observed);
  const [conflict] = attachment.forceAddress ? [] : conflictingAddresses(attachment, observed);
  return [
    ...(unfiltered === undefined ? [] : [unfiltered]),
    ...(conflict
      ? [
          `${carrier === bridge ? 'bridge' : 'link'} "${carrier}" already has address ${formatPrefixedIp(conflict)}, which conflicts with a gateway`,
        ]
      : []),
  ];
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
  const vlans = rangesOf(config).length > 0;
  for (const feature of context.backend.lacks({ vlans }))
    problems.push(`the kernel has no ${feature}`);
  const { ipam } = config;
  attempt(() => {
    // A container of that name does not exist: nobody's addresses count as free.
    if (ipam) allocate(rangeSetsOf(ipam), wholeBook(context, request, ipam));
  });
  if (config.mode === 'bridge')
    attempt(() => problems.push(...bridgeProblems(context, imagined(context, request, config))));
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
