/** One call by a container runtime: from the environment and standard input to standard output and the exit status. */
import { type CallOptions, parseCallOptions } from '../call-options.ts';
import { CNI_ERROR, CniError, formatError } from '../cni/error.ts';
import { type Places, parsePlaces } from '../cni/places.ts';
import {
  type Environment,
  type Request,
  checkEnvironment,
  parseRequest,
  verbOf,
  versionAnswer,
} from '../cni/request.ts';
import { CURRENT_VERSION, findVersion } from '../cni/version.ts';
import { type CallLog, makeLog } from '../log/log.ts';
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

/** STATUS comes every few seconds and changes nothing: it is logged only when it fails, or somebody looks for it. */
function levelOf({ verb }: Request): 'debug' | 'info' {
  return verb === 'STATUS' ? 'debug' : 'info';
}

/** What the log shows of a call: never the environment, never the configuration. */
function logCall(log: CallLog, request: Request): void {
  log.log(levelOf(request), `CNI ${request.verb}`, {
    container: request.key.containerId,
    netns: request.netns,
    network: request.key.network,
    ifname: request.key.ifname,
  });
}

/** The version that an error answers in: the question's where it is known. */
function answerVersion(config: Readonly<Record<string, unknown>> | undefined): string {
  return findVersion(config?.['cniVersion']) ?? CURRENT_VERSION;
}

/** What of the process's surroundings a call needs beside the variables of the specification. */
export interface Surroundings {
  /** The file name that the executable was called by: under `loopback` it is that plugin. */
  readonly calledAs: string;
  /** The whole environment, for delegates. */
  readonly variables: Readonly<Record<string, string | undefined>>;
  /** The runtime vouches that the pod's netns may be the plugin's own (CNI_NETNS_OVERRIDE, pkg/skel of libcni). */
  readonly mayBeOwnNetns: boolean;
}

/** Answers the call that `environment` and the arguments describe and returns the exit status. */
export async function cniCall(
  environment: Environment,
  args: readonly string[],
  surroundings: Surroundings,
): Promise<number> {
  const log = makeLog({ pid: process.pid });
  const started = performance.now();
  let request: Request | undefined;
  let options: CallOptions | undefined;
  let places: Places | undefined;
  let status: number;
  try {
    options = parseCallOptions(args);
    const verb = verbOf(environment);
    checkEnvironment(environment, verb);
    if (verb === 'VERSION') {
      writeAll(1, versionAnswer());
      return 0;
    }
    request = parseRequest(environment, readStdin());
    if (surroundings.calledAs === 'loopback') {
      const { loopbackCall } = await import('./loopback-call.ts');
      return await loopbackCall(request, options, surroundings);
    }
    places = parsePlaces(request.config);
    logCall(log, request);
    // VERSION and calls that are refused need nothing of what follows.
    const { networkCall } = await import('./network-call.ts');
    status = await networkCall(request, places, options, log, {
      ...surroundings,
      cniPath: environment.CNI_PATH ?? '',
    });
    log.log(levelOf(request), `CNI ${request.verb} done`, {
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
  if (places && options?.plan === undefined) await log.flush(places);
  return status;
}
