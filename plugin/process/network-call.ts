/** A call that looks at the network or changes it. */
import type { Plan } from '../../model/plan.ts';
import type { CallOptions } from '../call-options.ts';
import { add, checkNetns, planAdd } from '../call/add.ts';
import { checkCall, planRepair } from '../call/check.ts';
import type { CallContext } from '../call/context.ts';
import { del, planDel } from '../call/del.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { Places } from '../cni/places.ts';
import type { Request } from '../cni/request.ts';
import { formatResult } from '../cni/result.ts';
import type { CallLog } from '../log/log.ts';
import { linuxContext, lookingContext } from './context.ts';
import { readConfig } from './known-config.ts';
import type { Planned } from './plan-output.ts';
import { writeAll } from './stdio.ts';

/** Writes the result; undoes the call when nobody could be told of it. */
async function answerAdd(context: CallContext, request: Request): Promise<void> {
  const config = await readConfig(context.state, request.config, 'remember');
  const added = add(context, request, config);
  try {
    writeAll(1, formatResult(added.result));
  } catch (error) {
    added.cancel();
    throw new CniError(
      CNI_ERROR.io,
      `cannot write the result: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  added.finish();
}

async function answer(context: CallContext, request: Request): Promise<void> {
  switch (request.verb) {
    case 'ADD':
      return answerAdd(context, request);
    case 'DEL':
      checkNetns(context, request.netns);
      return del(context, request.key);
    case 'CHECK':
      return checkCall(context, request);
  }
}

/** The plan of a call, with what it was computed from; of a DEL without a record there is none. */
async function planOf(context: CallContext, request: Request): Promise<Planned | undefined> {
  switch (request.verb) {
    case 'ADD':
      return planAdd(
        context,
        request,
        await readConfig(context.state, request.config, 'only look'),
      );
    case 'DEL':
      checkNetns(context, request.netns);
      return planDel(context, request.key);
    case 'CHECK':
      return planRepair(context, request.key);
  }
}

function hasChanges(plan: Plan | undefined): boolean {
  return (plan?.ops.length ?? 0) > 0;
}

/** Carries out a call, or prints its plan, and returns the exit status. Throws the error to answer. */
export async function networkCall(
  request: Request,
  places: Places,
  options: CallOptions,
  log: CallLog,
): Promise<number> {
  if (options.plan === undefined) {
    await answer(linuxContext(places.dataDir, log.log), request);
    return 0;
  }
  const planned = await planOf(lookingContext(places.dataDir, log.log), request);
  const { printPlan } = await import('./plan-output.ts');
  printPlan(request.verb, planned, options.plan);
  return options.detailedExitcode && hasChanges(planned?.plan) ? 2 : 0;
}
