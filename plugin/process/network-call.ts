/** A call that looks at the network or changes it. */
import { existsSync } from 'node:fs';
import type { Plan } from '../../model/plan.ts';
import { type CallOptions, noPlanOf } from '../call-options.ts';
import type { CallContext } from '../call/context.ts';
import { checkNetns } from '../call/netns.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { Places } from '../cni/places.ts';
import type { Request } from '../cni/request.ts';
import { delegateOf } from '../ipam/delegate.ts';
import { hostLocalOf } from '../ipam/host-local-folder.ts';
import type { CallLog } from '../log/log.ts';
import { DamagedStateError } from '../store/error.ts';
import { linuxContext, lookingContext, readingContext } from './context.ts';
import { readConfig } from './known-config.ts';
import type { Planned } from './plan-output.ts';
import { writeAll } from './stdio.ts';

/** What of the process's surroundings a call on the network needs. */
export interface NetworkSurroundings {
  readonly variables: Readonly<Record<string, string | undefined>>;
  readonly cniPath: string;
  readonly mayBeOwnNetns: boolean;
}

/** Writes the result; undoes the call when nobody could be told of it. */
async function answerAdd(context: CallContext, request: Request): Promise<void> {
  const { config, warnings } = await readConfig(context.state, request.config, 'remember');
  for (const warning of warnings) context.log('warn', warning, { network: request.key.network });
  const { add } = await import('../call/add.ts');
  const { formatResult } = await import('../cni/result.ts');
  const added = add(context, request, config);
  try {
    writeAll(1, formatResult(added.result, request.cniVersion));
  } catch (error) {
    added.cancel();
    throw new CniError(
      CNI_ERROR.io,
      `cannot write the result: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  added.finish();
}

/** Does the result of ADD name links of which none is the one that we would make? */
async function namesForeignLinks(
  { identity }: CallContext,
  { config, key }: Request,
): Promise<boolean> {
  const { readResult } = await import('../reference/result.ts');
  const { usualEnds } = await import('../attachment.ts');
  const names = readResult(config['prevResult']).interfaces.map(({ name }) => name);
  return names.length > 0 && !names.includes(usualEnds(identity, key).hostIfname);
}

/**
 * Without a record of ours others may have one: the plugin that gives the addresses, of an earlier boot, or the reference
 * chain, which the network had before.
 */
export async function delUnrecorded(context: CallContext, request: Request): Promise<void> {
  const { config, key, netns, stdin } = request;
  const isNamed = await namesForeignLinks(context, request);
  if (isNamed || existsSync(hostLocalOf(request))) {
    const { departUnrecorded } = await import('./departure.ts');
    await departUnrecorded(context, request, isNamed);
  }
  const type = delegateOf(config);
  if (type !== undefined) context.delegate({ type, verb: 'DEL', stdin, key, netns });
}

async function answer(context: CallContext, request: Request): Promise<void> {
  switch (request.verb) {
    case 'ADD':
      return answerAdd(context, request);
    case 'DEL': {
      checkNetns(context, request.netns);
      const { del } = await import('../call/del.ts');
      if (!del(context, request.key, request.config['prevResult']))
        await delUnrecorded(context, request);
      return undefined;
    }
    case 'CHECK': {
      const { checkCall } = await import('../call/check.ts');
      return checkCall(context, request);
    }
    case 'GC': {
      const { gc } = await import('../call/gc.ts');
      return gc(context, request);
    }
    case 'STATUS': {
      const { status } = await import('../call/status.ts');
      const { config } = await readConfig(context.state, request.config, 'only look');
      return status(context, request, config);
    }
  }
}

/** The plan of a call, with what it was computed from; of a DEL without a record there is none. */
async function planOf(context: CallContext, request: Request): Promise<Planned | undefined> {
  switch (request.verb) {
    case 'ADD': {
      const { config } = await readConfig(context.state, request.config, 'only look');
      const { planAdd } = await import('../call/add.ts');
      return planAdd(context, request, config);
    }
    case 'DEL': {
      checkNetns(context, request.netns);
      const { planDel } = await import('../call/del.ts');
      return planDel(context, request.key);
    }
    case 'CHECK': {
      const { planRepair } = await import('../call/check.ts');
      return planRepair(context, request.key);
    }
    case 'GC':
    case 'STATUS':
      throw noPlanOf(request.verb);
  }
}

function hasChanges(plan: Plan | undefined): boolean {
  return (plan?.ops.length ?? 0) > 0;
}

/** Does the call remove something that was taken over from the reference plugins? */
function needsDeparture({ state }: CallContext, { verb, key }: Request): boolean {
  if (verb === 'DEL') return state.find(key)?.attachment.madeBy !== undefined;
  return (
    verb === 'GC' &&
    state
      .list()
      .some(({ attachment }) => attachment.key.network === key.network && attachment.madeBy)
  );
}

/** Does the call concern an attachment whose addresses another plugin gives? */
function needsDelegate({ state }: CallContext, { verb, config, key }: Request): boolean {
  if (delegateOf(config) !== undefined) return true;
  if (verb === 'DEL' || verb === 'CHECK' || verb === 'ADD')
    return state.find(key)?.attachment.ipam !== undefined;
  return (
    verb === 'GC' &&
    state.list().some(({ attachment }) => attachment.key.network === key.network && attachment.ipam)
  );
}

/** The context with what this call needs of other programs, which most calls do not load. */
export async function prepared(
  context: CallContext,
  request: Request,
  { cniPath, variables, mayBeOwnNetns }: NetworkSurroundings,
): Promise<CallContext> {
  let ready = mayBeOwnNetns ? { ...context, isOwnNetns: () => false } : context;
  if (needsDelegate(ready, request)) {
    const { makeDelegate } = await import('./delegate.ts');
    ready = { ...ready, delegate: makeDelegate(cniPath, variables) };
  }
  if (needsDeparture(ready, request)) {
    const { makeDepart } = await import('./departure.ts');
    ready = { ...ready, depart: await makeDepart(ready, hostLocalOf(request)) };
  }
  return ready;
}

/** Carries out a call; a state file that turns out to be damaged is replaced, once, by what the kernel tells. */
async function carryOut(
  request: Request,
  dataDir: string,
  log: CallLog,
  around: NetworkSurroundings,
): Promise<void> {
  const attempt = async (): Promise<void> => {
    const context = await prepared(await linuxContext(dataDir, log.log), request, around);
    await answer(context, request);
  };
  try {
    await attempt();
  } catch (error) {
    if (!(error instanceof DamagedStateError)) throw error;
    const { replaceDamagedState } = await import('./recovery.ts');
    replaceDamagedState(dataDir, log.log);
    await attempt();
  }
}

/** STATUS: a state file that is damaged or held is a reason for not being ready. */
async function answerStatus(
  request: Request,
  dataDir: string,
  log: CallLog,
  around: NetworkSurroundings,
): Promise<void> {
  try {
    await answer(await prepared(readingContext(dataDir, log.log), request, around), request);
  } catch (error) {
    if (!(error instanceof DamagedStateError)) throw error;
    throw new CniError(CNI_ERROR.notAvailable, error.message, error.details);
  }
}

/** Carries out a call, or prints its plan, and returns the exit status. Throws the error to answer. */
export async function networkCall(
  request: Request,
  places: Places,
  options: CallOptions,
  log: CallLog,
  around: NetworkSurroundings,
): Promise<number> {
  const { dataDir } = places;
  if (options.plan === undefined) {
    await (request.verb === 'STATUS' ? answerStatus : carryOut)(request, dataDir, log, around);
    return 0;
  }
  const planned = await planOf(await lookingContext(dataDir, log.log), request);
  const { printPlan } = await import('./plan-output.ts');
  printPlan(request.verb as 'ADD' | 'DEL' | 'CHECK', planned, options.plan);
  return options.detailedExitcode && hasChanges(planned?.plan) ? 2 : 0;
}
