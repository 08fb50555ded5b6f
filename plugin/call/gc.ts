/** GC: removes what is left of attachments that the runtime no longer knows (CNI specification, section 4, "GC"). */
import { applyPlan } from '../../backends/apply.ts';
import type { DesiredNetns, DesiredSet } from '../../model/desired.ts';
import { HOST_NETNS, type Host, findLink, getNetns, portsOf } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { OWNER_MARK, isOurs } from '../../model/link.ts';
import { formatFailure } from '../../model/message.ts';
import { type SetElement, type Table, tableKey } from '../../model/nftables.ts';
import { planTo } from '../../model/plan.ts';
import { formatKey } from '../attachment.ts';
import { bridgeOf } from '../bridge.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { AttachmentKey, Request } from '../cni/request.ts';
import { abandoned, adoptedLinks } from '../forward.ts';
import { delegateOf, isUnknownVerb } from '../ipam/delegate.ts';
import { WHOLE_SCOPE, aliasOf } from '../network.ts';
import { OWN_TABLES, commentOf } from '../table.ts';
import { gatewaysOn } from '../vlan.ts';
import type { CallContext } from './context.ts';
import { del } from './del.ts';
import { logOps } from './report.ts';

/** The two names that the list of valid attachments has had; libcni sends both (its api.go, GCNetworkList). */
const LISTS = ['cni.dev/valid-attachments', 'cni.dev/attachments'];

/** The attachments that the runtime still knows, by either name; undefined when it did not say, which is not the same as none. */
function validAttachments({ config, key: { network } }: Request): AttachmentKey[] | undefined {
  const names = LISTS.filter((each) => config[each] !== undefined);
  return names.length === 0
    ? undefined
    : names.flatMap((name) => attachmentsIn(config[name], name, network));
}

function attachmentsIn(list: unknown, name: string, network: string): AttachmentKey[] {
  const fail = (): never => {
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `invalid network configuration: ${name}: it must be a list of {"containerID", "ifname"}`,
    );
  };
  if (!Array.isArray(list)) return fail();
  return list.map((each: unknown) => {
    const { containerID, ifname } = (each ?? {}) as Readonly<Record<string, unknown>>;
    if (typeof containerID !== 'string' || typeof ifname !== 'string') return fail();
    return { network, containerId: containerID, ifname: ifname as Ifname };
  });
}

type IsOrphan = (element: SetElement) => boolean;

/** A table without the elements of attachments that nobody knows. */
function sweptTable(table: Table, isOrphan: IsOrphan) {
  const sets: Record<string, DesiredSet> = {};
  for (const { name, keyType, holds, elements } of Object.values(table.sets)) {
    const orphans = Object.values(elements).filter(isOrphan);
    if (orphans.length > 0)
      sets[name] = {
        keyType,
        holds,
        elements: Object.fromEntries(orphans.map(({ key }) => [key, 'absent' as const])),
        others: 'keep',
      };
  }
  return { family: table.family, name: table.name, chains: {}, sets, others: 'keep' as const };
}

/** The host without links and elements of this network that belong to no attachment that is recorded or valid. */
function swept(
  context: CallContext,
  { config, key: { network } }: Request,
  valid: readonly AttachmentKey[],
  observed: Host,
): DesiredNetns {
  const recorded = context.state.list().map(({ attachment }) => attachment.key);
  const keys = [...recorded, ...valid];
  const aliases = new Set(keys.map((key) => aliasOf({ key })));
  const comments = new Set(keys.map(commentOf));
  const host = getNetns(observed, HOST_NETNS);
  const orphans = Object.values(host.links).filter(
    ({ alias }) => alias.startsWith(`${OWNER_MARK} ${network}/`) && !aliases.has(alias),
  );
  const bridge = bridgeOf(config);
  const link = findLink(observed, { netns: HOST_NETNS, ifname: bridge });
  const gateways = gatewaysOn(host, bridge);
  const noKey = { network, containerId: '', ifname: '' as Ifname };
  const isSpare =
    link?.kind === 'bridge' &&
    isOurs(link) &&
    portsOf(host, bridge).every(
      (each) => orphans.includes(each) || gateways.some(({ port }) => port === each.ifname),
    ) &&
    !context.state.isUsedByOthers(`bridge ${bridge}`, noKey);
  const shared = isSpare ? [bridge, ...gateways.map(({ ifname }) => ifname)] : [];
  const gone = [...orphans.map(({ ifname }) => ifname), ...shared];
  const isOrphan: IsOrphan = ({ comment }) =>
    comment.startsWith(`${network}/`) && !comments.has(comment);
  const isSpareTable = (key: string, { sets }: Table): boolean =>
    !context.state.isUsedByOthers(`table ${key}`, noKey) &&
    Object.values(sets).every(({ elements }) =>
      // One without a comment is part of the table, and nobody's.
      Object.values(elements).every((each) => each.comment === '' || isOrphan(each)),
    );
  const own = OWN_TABLES.map(tableKey);
  const tables = Object.entries(host.nftables).filter(([key]) => own.includes(key));
  const left = adoptedLinks(observed).filter(
    (ifname) =>
      (gone.includes(ifname) || !host.links[ifname]) &&
      !context.state.isUsedByOthers(`forward ${ifname}`, noKey),
  );
  return {
    links: Object.fromEntries(gone.map((ifname) => [ifname, 'absent' as const])),
    tables: {
      ...abandoned(observed, left),
      ...Object.fromEntries(
        tables.map(([key, table]) => [
          key,
          isSpareTable(key, table) ? ('absent' as const) : sweptTable(table, isOrphan),
        ]),
      ),
    },
  };
}

/** Removes what the kernel has of attachments of which nothing is recorded: those of a state file that was lost. */
function sweep(context: CallContext, request: Request, valid: readonly AttachmentKey[]): void {
  const observed = context.backend.observe(WHOLE_SCOPE);
  const planning = planTo(observed, { [HOST_NETNS]: swept(context, request, valid, observed) });
  if (!planning.ok)
    throw new CniError(CNI_ERROR.kernel, formatFailure(planning.op, planning.fault));
  const report = applyPlan(context.backend, planning.plan, undefined, context.clock);
  logOps(context, { network: request.key.network }, report);
  if (report.failed)
    throw new CniError(
      CNI_ERROR.kernel,
      formatFailure(report.failed.op, report.failed.fault),
      'GC may be called again',
    );
}

/** GC: frees all that is not valid, goes on when something fails, and then throws one error that says all that did. */
export function gc(context: CallContext, request: Request): void {
  const { network } = request.key;
  const problems: CniError[] = [];
  const attempt = (work: () => void): void => {
    try {
      work();
    } catch (error) {
      if (!(error instanceof CniError)) throw error;
      problems.push(error);
    }
  };
  const valid = validAttachments(request);
  if (!valid) {
    context.log('warn', 'GC without a list of valid attachments: nothing is removed', { network });
  } else {
    const isValid = new Set(valid.map(formatKey));
    for (const { attachment } of context.state.list()) {
      const { key } = attachment;
      if (key.network !== network || isValid.has(formatKey(key))) continue;
      attempt(() => void del(context, key));
    }
    attempt(() => context.exclusively(() => sweep(context, request, valid)));
  }
  const type = delegateOf(request.config);
  if (type !== undefined)
    attempt(() => {
      try {
        context.delegate({ type, verb: 'GC', stdin: request.stdin, key: undefined, netns: '' });
      } catch (error) {
        // Older plugins have no such verb.
        if (!isUnknownVerb(error)) throw error;
      }
    });
  const [first] = problems;
  if (first)
    throw new CniError(
      first.code,
      `GC of network ${network}: ${first.message}`,
      problems
        .map(({ message, details }) => [message, details].filter(Boolean).join(': '))
        .join('\n'),
    );
}
