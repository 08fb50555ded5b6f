/** What a runtime asks: the environment and the configuration on standard input, checked in the order of the reference's dispatcher. */
import { IFNAME_MAX_BYTES, type Ifname } from '../../model/ifname.ts';
import { CNI_ERROR, CniError } from './error.ts';
import { CONFIG_KEYS, foldKeys } from './keys.ts';
import {
  CURRENT_VERSION,
  type CniVersion,
  SUPPORTED_VERSIONS,
  UNNAMED_VERSION,
  findVersion,
  isBefore,
} from './version.ts';

export type Verb = 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS' | 'VERSION';

/** Names one attachment: one link of one container in one network. */
export interface AttachmentKey {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: Ifname;
}

export interface Environment {
  readonly CNI_COMMAND?: string | undefined;
  readonly CNI_CONTAINERID?: string | undefined;
  readonly CNI_NETNS?: string | undefined;
  readonly CNI_IFNAME?: string | undefined;
  readonly CNI_ARGS?: string | undefined;
  readonly CNI_PATH?: string | undefined;
}

/** A request whose environment is sound and whose configuration is JSON with a network name and a version of ours. */
export interface Request {
  readonly verb: Exclude<Verb, 'VERSION'>;
  /** Container and link are '' in GC and STATUS, which are about a network. */
  readonly key: AttachmentKey;
  /** '' when the runtime gave none, as it may in DEL. */
  readonly netns: string;
  readonly cniVersion: CniVersion;
  /** The configuration with its keys in their canonical case, otherwise as it came, not yet read. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Standard input as it came: what delegates get. */
  readonly stdin: string;
  /** CNI_ARGS. */
  readonly args: string;
}

const REQUIRED: Readonly<Record<string, readonly (keyof Environment)[]>> = {
  ADD: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'],
  DEL: ['CNI_CONTAINERID', 'CNI_IFNAME', 'CNI_PATH'],
  CHECK: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'],
  GC: ['CNI_PATH'],
  STATUS: ['CNI_PATH'],
  VERSION: [],
};

/** The version of the specification that brought a verb (section 4). */
const BROUGHT_BY: Readonly<Record<string, CniVersion>> = {
  CHECK: '0.4.0',
  GC: '1.1.0',
  STATUS: '1.1.0',
};

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

function invalidEnvironment(message: string, details = ''): never {
  throw new CniError(CNI_ERROR.invalidEnvironment, message, details);
}

/** A link name by the specification's rules (section 2, "CNI_IFNAME"), and by the kernel's, which also reads `%` as a template. */
function checkIfname(name: string): void {
  if (new TextEncoder().encode(name).length > IFNAME_MAX_BYTES) {
    invalidEnvironment(
      'interface name is too long',
      'interface name should be less than 16 characters',
    );
  }
  if (name === '.' || name === '..') invalidEnvironment('interface name is . or ..');
  if (/[/:\s]/.test(name))
    invalidEnvironment('interface name contains / or : or whitespace characters');
  if (name.includes('%'))
    invalidEnvironment('interface name contains %', 'the kernel would take it for a template');
}

/** The verb of a call; throws for one that nobody knows. */
export function verbOf(environment: Environment): string {
  const verb = environment.CNI_COMMAND ?? '';
  if (!Object.hasOwn(REQUIRED, verb))
    throw new CniError(CNI_ERROR.invalidEnvironment, `unknown CNI_COMMAND: ${verb}`);
  return verb;
}

/** Are the variables that the verb needs there and well formed? Throws an error of code 4. */
export function checkEnvironment(environment: Environment, verb: string): void {
  const required = REQUIRED[verb] ?? [];
  const id = environment.CNI_CONTAINERID ?? '';
  if (required.includes('CNI_CONTAINERID') && id !== '' && !NAME.test(id)) {
    throw new CniError(CNI_ERROR.invalidEnvironment, 'invalid characters in containerID', id);
  }
  const ifname = environment.CNI_IFNAME ?? '';
  if (required.includes('CNI_IFNAME') && ifname !== '') checkIfname(ifname);
  const missing = required.filter((name) => (environment[name] ?? '') === '');
  if (missing.length > 0) {
    throw new CniError(
      CNI_ERROR.invalidEnvironment,
      `required env variables [${missing.join(',')}] missing`,
    );
  }
}

/** How deep a configuration may be nested: as Go's decoder has it (encoding/json, maxNestingDepth). What follows may recurse. */
const DEPTH_MAX = 10_000;

function isTooDeep(value: unknown): boolean {
  let level = [value];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > DEPTH_MAX) return true;
    level = level.flatMap((each) =>
      each !== null && typeof each === 'object' ? Object.values(each) : [],
    );
  }
  return false;
}

function parseConfig(stdin: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(stdin);
  } catch (error) {
    throw new CniError(
      CNI_ERROR.decode,
      `error unmarshall network config: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new CniError(
      CNI_ERROR.decode,
      'error unmarshall network config: it is not a JSON object',
    );
  }
  // Every level takes two characters.
  if (stdin.length > 2 * DEPTH_MAX && isTooDeep(value)) {
    throw new CniError(CNI_ERROR.decode, 'error unmarshall network config: exceeded max depth');
  }
  return foldKeys(value, CONFIG_KEYS) as Record<string, unknown>;
}

function checkVersion(verb: string, version: string): CniVersion {
  const broughtBy = BROUGHT_BY[verb];
  if (broughtBy !== undefined && isBefore(version, broughtBy))
    throw new CniError(CNI_ERROR.incompatibleVersion, `config version does not allow ${verb}`);
  const supported = findVersion(version);
  if (supported === undefined) {
    const known = SUPPORTED_VERSIONS.map((v) => `"${v}"`).join(' ');
    throw new CniError(
      CNI_ERROR.incompatibleVersion,
      'incompatible CNI versions',
      `config is "${version}", plugin supports [${known}]`,
    );
  }
  return supported;
}

/** Reads a call other than VERSION; throws the error that is to be answered. */
export function parseRequest(environment: Environment, stdin: string): Request {
  const verb = verbOf(environment);
  checkEnvironment(environment, verb);
  const config = parseConfig(stdin);
  const name = config['name'];
  if (name === undefined || name === null || name === '')
    throw new CniError(CNI_ERROR.invalidConfig, 'missing network name');
  if (typeof name !== 'string')
    throw new CniError(CNI_ERROR.decode, 'error unmarshall network config: name is not a string');
  if (!NAME.test(name))
    throw new CniError(CNI_ERROR.invalidConfig, 'invalid characters found in network name', name);
  const version = config['cniVersion'] ?? '';
  if (typeof version !== 'string')
    throw new CniError(
      CNI_ERROR.decode,
      'error unmarshall network config: cniVersion is not a string',
    );
  const cniVersion = checkVersion(verb, version === '' ? UNNAMED_VERSION : version);
  return {
    verb: verb as Request['verb'],
    key: {
      network: name,
      containerId: environment.CNI_CONTAINERID ?? '',
      ifname: (environment.CNI_IFNAME ?? '') as Ifname,
    },
    netns: environment.CNI_NETNS ?? '',
    cniVersion,
    config,
    stdin,
    args: environment.CNI_ARGS ?? '',
  };
}

/** The answer to VERSION (section 4): one line, as the reference prints it. */
export function versionAnswer(): string {
  return `${JSON.stringify({ cniVersion: CURRENT_VERSION, supportedVersions: SUPPORTED_VERSIONS })}\n`;
}
