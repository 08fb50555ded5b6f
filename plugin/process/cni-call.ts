/** One call by a container runtime: from the environment and standard input to standard output and the exit status. */
import { type CallOptions, parseCallOptions } from '../call-options.ts';
import { CNI_ERROR, CniError, formatError } from '../cni/error.ts';
import { type Places, parsePlaces } from '../cni/places.ts';
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

/** What the log shows of a call: never the environment, never the configuration. */
function logCall(log: CallLog, request: Request): void {
  log.log('info', `CNI ${request.verb}`, {
    container: request.key.containerId,
    netns: request.netns,
    network: request.key.network,
    ifname: request.key.ifname,
  });
}

/** The version that an error answers in: the question's where it is known. */
function answerVersion(config: Readonly<Record<string, unknown>> | undefined): string {
  return (
    SUPPORTED_VERSIONS.find((version) => version === config?.['cniVersion']) ?? CURRENT_VERSION
  );
}

/** Answers the call that `environment` and the arguments describe and returns the exit status. */
export async function cniCall(environment: Environment, args: readonly string[]): Promise<number> {
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
    places = parsePlaces(request.config);
    logCall(log, request);
    // VERSION and calls that are refused need nothing of what follows.
    const { networkCall } = await import('./network-call.ts');
    status = await networkCall(request, places, options, log);
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
  if (places && options?.plan === undefined) await log.flush(places);
  return status;
}
