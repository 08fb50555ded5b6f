/** A call under the name of the reference plugin `loopback`: it reads and writes no file, neither state nor log. */
import type { Plan } from '../../model/plan.ts';
import { type CallOptions, type PlanFormat, noPlanOf } from '../call-options.ts';
import type { LoopbackContext } from '../call/loopback.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { Request } from '../cni/request.ts';
import { writeAll } from './stdio.ts';

/** What of the process's surroundings this call needs. */
interface LoopbackSurroundings {
  readonly mayBeOwnNetns: boolean;
}

async function loopbackContext(
  { mayBeOwnNetns }: LoopbackSurroundings,
  isPlan: boolean,
): Promise<LoopbackContext> {
  const { makeLinuxBackend } = await import('../../backends/linux/linux.ts');
  const { sameNetns } = await import('../../backends/linux/netns.ts');
  return {
    backend: makeLinuxBackend({ tellsRelease: isPlan }),
    isOwnNetns: mayBeOwnNetns ? () => false : sameNetns,
    clock: () => performance.now(),
  };
}

/** The plan as text. Throws for JSON, which is there for `apply`. */
async function formatLoopbackPlan(plan: Plan, format: PlanFormat): Promise<string> {
  switch (format) {
    case 'text': {
      const { formatPlan } = await import('../../model/plan-text.ts');
      return formatPlan(plan);
    }
    case 'sh': {
      const { formatScript } = await import('../../model/plan-script.ts');
      return formatScript(plan.ops);
    }
    case 'json':
      throw new CniError(
        CNI_ERROR.invalidEnvironment,
        'there is no plan of loopback as JSON',
        'a saved plan is that of an attachment; there are --plan and --plan=sh',
      );
  }
}

/** Carries out a call, or prints its plan, and returns the exit status. Throws the error to answer. */
export async function loopbackCall(
  request: Request,
  options: CallOptions,
  around: LoopbackSurroundings,
): Promise<number> {
  const { verb, netns, cniVersion } = request;
  if (verb === 'GC' || verb === 'STATUS') {
    if (options.plan !== undefined) throw noPlanOf(verb);
    // There is nothing to collect, and ADD needs nothing that could be missing.
    return 0;
  }
  const context = await loopbackContext(around, options.plan !== undefined);
  const { addLoopback, checkLoopback, delLoopback, planLoopback } =
    await import('../call/loopback.ts');
  if (options.plan !== undefined) {
    const plan = planLoopback(context, verb, netns);
    writeAll(1, await formatLoopbackPlan(plan, options.plan));
    return options.detailedExitcode && plan.ops.length > 0 ? 2 : 0;
  }
  switch (verb) {
    case 'ADD': {
      const { formatResult } = await import('../cni/result.ts');
      writeAll(1, formatResult(addLoopback(context, request), cniVersion));
      return 0;
    }
    case 'DEL':
      delLoopback(context, request);
      return 0;
    case 'CHECK':
      checkLoopback(context, request);
      return 0;
  }
}
