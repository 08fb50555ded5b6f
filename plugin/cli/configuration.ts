import { readFileSync } from 'node:fs';
import type { Ifname } from '../../model/ifname.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import { type Request, type Verb, parseRequest } from '../cni/request.ts';
import { readStdin } from '../process/stdio.ts';

/** What a person gives for a call; a runtime would put it into the environment. */
export interface CallFlags {
  /** A file with a network configuration or a list of them; `-` is standard input. */
  readonly config: string;
  readonly containerId: string;
  readonly ifname: string;
  /** A name under /run/netns or a path. */
  readonly netns?: string;
  /** Folders, as CNI_PATH has them. */
  readonly cniPath: string;
}

/** Where plugins usually are. */
export const CNI_PATH = '/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni';

/** The plugin's `type` in configurations. */
const PLUGIN_TYPE = 'cube-cni';

function isRecord(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

/**
 * A configuration as a runtime would hand it to this plugin: of a list, the entry of our type with the
 * list's name and version (CNI specification, section 3, "Deriving execution configuration from plugin configuration").
 */
export function pluginConfiguration(text: string, source: string): string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new CniError(
      CNI_ERROR.decode,
      `${source} is not JSON: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  if (!isRecord(value) || !Array.isArray(value['plugins'])) return text;
  const plugin = value['plugins'].filter(isRecord).find((each) => each['type'] === PLUGIN_TYPE);
  if (!plugin)
    throw new CniError(CNI_ERROR.invalidConfig, `${source} has no plugin of type "${PLUGIN_TYPE}"`);
  return JSON.stringify({ ...plugin, name: value['name'], cniVersion: value['cniVersion'] });
}

/** Reads a file that the command line names; `-` is standard input. Throws a CniError that names it. */
export function readText(source: string): string {
  if (source === '-') return readStdin();
  try {
    return readFileSync(source, 'utf8');
  } catch (error) {
    throw new CniError(
      CNI_ERROR.io,
      `cannot read ${source}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

/** The request that the flags describe, checked as a runtime's would be. */
export function requestOf(verb: Exclude<Verb, 'VERSION'>, flags: CallFlags): Request {
  const { config, containerId, ifname, netns, cniPath } = flags;
  const path = netns === undefined || netns.includes('/') ? netns : `/run/netns/${netns}`;
  return parseRequest(
    {
      CNI_COMMAND: verb,
      CNI_CONTAINERID: containerId,
      CNI_IFNAME: ifname,
      CNI_NETNS: path,
      CNI_PATH: cniPath,
    },
    pluginConfiguration(readText(config), config === '-' ? 'standard input' : config),
  );
}

/** The request about a network that a configuration file describes, as GC and STATUS are. */
export function networkRequest(config: string): Request {
  const text = pluginConfiguration(readText(config), config === '-' ? 'standard input' : config);
  const request = parseRequest(
    {
      CNI_COMMAND: 'DEL',
      CNI_CONTAINERID: 'none',
      CNI_IFNAME: 'none',
      CNI_PATH,
    },
    text,
  );
  return { ...request, key: { ...request.key, containerId: '', ifname: '' as Ifname } };
}
