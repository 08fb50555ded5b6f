import { applyPlan } from '../../backends/apply.ts';
import { canonicalJson, sameJson } from '../../model/canonical.ts';
import { formatFailure } from '../../model/message.ts';
import type { Plan } from '../../model/plan.ts';
import { formatKey } from '../attachment.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { CniResult } from '../cni/result.ts';
import type { SavedPlan } from '../format/plan-file.ts';
import { addDrafted } from './add.ts';
import { planRepair } from './check.ts';
import type { CallContext } from './context.ts';
import { del } from './del.ts';
import { logReport } from './report.ts';
import { retreatOf } from './retreat.ts';

/** Where two JSON values first differ, as a path, or undefined. */
function differenceAt(a: unknown, b: unknown, path = ''): string | undefined {
  if (a === null || b === null || typeof a !== 'object' || typeof b !== 'object')
    return a === b ? undefined : path;
  const left = new Map<string, unknown>(Object.entries(a));
  const right = new Map<string, unknown>(Object.entries(b));
  for (const key of new Set([...left.keys(), ...right.keys()])) {
    const found = differenceAt(
      left.get(key) ?? null,
      right.get(key) ?? null,
      path === '' ? key : `${path} > ${key}`,
    );
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Is it an address that the kernel makes by itself, a while after a link comes up (K-4.1)? */
function isLinkLocal(address: unknown): boolean {
  return (address as { readonly scope?: unknown } | null)?.scope === 'link';
}

/** A host as JSON without what changes in it by itself: link-local addresses that come, and checks for duplicates that end. */
function settled(host: unknown): unknown {
  return JSON.parse(
    JSON.stringify(host, (key, part: unknown) => {
      if (key === 'tentative') return undefined;
      return key === 'addresses' && Array.isArray(part)
        ? part.filter((address) => !isLinkLocal(address))
        : part;
    }),
  );
}

/** Refuses a plan other than the saved one: what that was computed from has changed. */
function verify(saved: SavedPlan, plan: Plan): void {
  const now: unknown = JSON.parse(canonicalJson(plan.before));
  const where = differenceAt(settled(saved.before), settled(now));
  if (where !== undefined)
    throw new CniError(
      CNI_ERROR.drift,
      'the host has changed since the plan was made',
      `at ${where}`,
    );
  if (!sameJson(saved.operations, JSON.parse(canonicalJson(plan.ops)))) {
    throw new CniError(
      CNI_ERROR.drift,
      'the plan is another one by now',
      'other attachments share its objects, or it was made by another version',
    );
  }
}

/** Carries out a saved plan if what it was computed from is still so. Answers the result of an ADD. */
export function applySaved(context: CallContext, saved: SavedPlan): CniResult | undefined {
  const { verb, attachment } = saved;
  if (attachment === null) return undefined;
  if (attachment.ipam)
    throw new CniError(
      CNI_ERROR.unsupportedField,
      `a plan with addresses of ${attachment.ipam.type} cannot be applied later`,
      'they are known only after it was asked',
    );
  const check = (plan: Plan): void => verify(saved, plan);
  switch (verb) {
    case 'ADD': {
      const added = addDrafted(context, attachment, check);
      added.finish();
      return added.result;
    }
    case 'DEL':
      if (!context.state.find(attachment.key))
        throw new CniError(
          CNI_ERROR.drift,
          `there is no attachment ${formatKey(attachment.key)} any more`,
        );
      del(context, attachment.key, undefined, check);
      return undefined;
    case 'CHECK':
      context.exclusively(() => {
        const { plan } = planRepair(context, attachment.key);
        check(plan);
        const report = applyPlan(context.backend, plan, retreatOf(attachment, plan), context.clock);
        logReport(context, attachment, report);
        if (report.failed)
          throw new CniError(
            CNI_ERROR.kernel,
            formatFailure(report.failed.op, report.failed.fault),
          );
      });
      return undefined;
  }
}
