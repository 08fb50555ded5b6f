/** One call by a container runtime: from the environment and standard input to standard output and the exit status. */
import type { Plan } from '../../model/plan.ts';
import type { CallOptions } from '../call-options.ts';
import { add, planAdd } from '../call/add.ts';
import { checkCall, planRepair } from '../call/check.ts';
import type { CallContext } from '../call/context.ts';
import { del, planDel } from '../call/del.ts';
import { type Places, parseConfig, parsePlaces } from '../cni/config.ts';
import { CNI_ERROR, CniError, formatError } from '../cni/error.ts';
import {
  CURRENT_VERSION,
  type Environment,
  type Request,
  SUPPORTED_VERSIONS,
  checkEnvironment,
  parseRequest,
  verbOf,
  versionAnswer,
} from '../cni/request.ts';
import { formatResult } from '../cni/result.ts';
import { type CallLog, makeLog } from '../log/log.ts';
import { linuxContext, lookingContext } from './context.ts';
import { printPlan } from './plan-output.ts';
import { readStdin, writeAll } from './stdio.ts';

/** Any error as one to answer; what is no CniError is a mistake in this program. */
export function asCniError(error: unknown): CniError {
  if (error instanceof CniError) return error;
  return new CniError(
    CNI_ERROR.internal,
    error instanceof Error ? error.message : String(error),
    'this is a mistake in cube-cni',
  );
}

/** Writes the result; undoes the call when nobody could be told of it. */
function answerAdd(context: CallContext, request: Request): void {
  const added = add(context, request, parseConfig(request.config));
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

function answer(context: CallContext, request: Request): void {
  switch (request.verb) {
    case 'ADD':
      return answerAdd(context, request);
    case 'DEL':
      return del(context, request.key);
    case 'CHECK':
      return checkCall(context, request);
  }
}

/** The plan of a call, with what it was computed from; of a DEL without a record there is none. */
function planOf(context: CallContext, request: Request) {
  switch (request.verb) {
    case 'ADD':
      return planAdd(context, request, parseConfig(request.config));
    case 'DEL':
      return planDel(context, request.key);
    case 'CHECK':
      return planRepair(context, request.key);
  }
}

function hasChanges(plan: Plan | undefined): boolean {
  return (plan?.ops.length ?? 0) > 0;
}

/** What the log shows of a call: never the environment, never the configuration. */
function logCall(log: CallLog, request: Request): void {
  log.log('info', `CNI ${request.verb}`, {
    container: request.key.containerId,
    netns: request.netns,
    network: request.key.network,
    ifname: request.key.ifname,
  });
}

function run(request: Request, places: Places, options: CallOptions, log: CallLog): number {
  if (options.plan === undefined) {
    answer(linuxContext(places.dataDir, log.log), request);
    return 0;
  }
  const planned = planOf(lookingContext(places.dataDir, log.log), request);
  printPlan(request.verb, planned, options.plan);
  return options.detailedExitcode && hasChanges(planned?.plan) ? 2 : 0;
}

/** The version that an error answers in: the question's where it is known. */
function answerVersion(config: Readonly<Record<string, unknown>> | undefined): string {
  return (
    SUPPORTED_VERSIONS.find((version) => version === config?.['cniVersion']) ?? CURRENT_VERSION
  );
}

/** Answers the call that `environment` describes and returns the exit status. */
export async function cniCall(environment: Environment, options: CallOptions): Promise<number> {
  const log = makeLog({ pid: process.pid });
  const started = performance.now();
  let request: Request | undefined;
  let places: Places | undefined;
  let status: number;
  try {
    const verb = verbOf(environment);
    checkEnvironment(environment, verb);
    if (verb === 'VERSION') {
      writeAll(1, versionAnswer());
      return 0;
    }
    request = parseRequest(environment, readStdin());
    places = parsePlaces(request.config);
    logCall(log, request);
    status = run(request, places, options, log);
    log.log('info', `CNI ${request.verb} done`, {
      container: request.key.containerId,
      durationMs: Math.round((performance.now() - started) * 1000) / 1000,
    });
  } catch (error) {
    const known = asCniError(error);
    log.log('error', known.message, {
      code: known.code,
      ...(known.details === '' ? {} : { details: known.details }),
      ...(request ? { container: request.key.containerId } : {}),
    });
    try {
      writeAll(1, formatError(known, answerVersion(request?.config)));
    } catch {
      // Nobody listens: the exit status says it all the same.
    }
    status = 1;
  }
  // A plan leaves no trace, not even in the log.
  if (places && options.plan === undefined) await log.flush(places);
  return status;
}
