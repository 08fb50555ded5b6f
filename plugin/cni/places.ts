/** Where state and log are: all that a call needs of its configuration before anything else, and all that DEL does. */
import { CNI_ERROR, CniError } from './error.ts';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export const LOG_FORMATS = ['json', 'text'] as const;

/** The smallest size at which a log is rotated: a line has to fit. */
const LOG_MIN_BYTES = 4096;

export interface Places {
  /** The folder of the state file. */
  readonly dataDir: string;
  readonly logFile: string;
  readonly logLevel: (typeof LOG_LEVELS)[number];
  readonly logFormat: (typeof LOG_FORMATS)[number];
  /** The log is rotated before it grows beyond this. */
  readonly logMaxBytes: number;
}

/** The keys of a configuration that say where things are; what a pod gets does not depend on them. */
export const PLACE_KEYS = ['dataDir', 'logFile', 'logLevel', 'logFormat', 'logMaxBytes'] as const;

type Raw = Readonly<Record<string, unknown>>;

function refuse(key: string, value: unknown, wanted: string): never {
  throw new CniError(
    CNI_ERROR.invalidConfig,
    `invalid network configuration: ${key}: it must be ${wanted}, not ${JSON.stringify(value)}`,
  );
}

/** A path; a relative one would mean the runtime's working directory. */
function path(raw: Raw, key: string, usual: string): string {
  const value = raw[key] ?? usual;
  if (typeof value !== 'string' || !value.startsWith('/') || value.includes('\0')) {
    refuse(key, value, 'an absolute path');
  }
  return value;
}

function choice<T extends string>(raw: Raw, key: string, usual: T, choices: readonly T[]): T {
  const value = raw[key] ?? usual;
  return (
    choices.find((each) => each === value) ?? refuse(key, value, `one of ${choices.join(', ')}`)
  );
}

function size(raw: Raw, key: string, usual: number): number {
  const value = raw[key] ?? usual;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < LOG_MIN_BYTES) {
    refuse(key, value, `a whole number of at least ${LOG_MIN_BYTES}`);
  }
  return value;
}

/** Reads only where state and log are, by hand: the schema of the rest takes milliseconds to load. */
export function parsePlaces(raw: Raw): Places {
  return {
    dataDir: path(raw, 'dataDir', '/var/lib/cni/cube-cni'),
    logFile: path(raw, 'logFile', '/var/log/cni/plugin.log'),
    logLevel: choice(raw, 'logLevel', 'info', LOG_LEVELS),
    logFormat: choice(raw, 'logFormat', 'json', LOG_FORMATS),
    logMaxBytes: size(raw, 'logMaxBytes', 10 * 1024 * 1024),
  };
}
