/** libcni's cache: what a runtime asked for and got, one file per attachment (containernetworking/cni, libcni/api.go, cachedInfo). */
import { readFileSync, readdirSync } from 'node:fs';
import { ifnameProblem, type Ifname } from '../../model/ifname.ts';
import type { AttachmentKey } from '../cni/request.ts';
import { type JsonObject, findObject } from './json.ts';

/** Where runtimes let libcni keep results (libcni/api.go, CacheDir; `results` below it). */
const RESULT_CACHE_DIR = '/var/lib/cni/results';

/** A configuration list as the runtime had it in ADD. */
export type Conflist = JsonObject;

/** One attachment in the cache. */
export interface CachedResult extends AttachmentKey {
  readonly config: Conflist;
  /** The result of the last plugin of the list, in whatever version of the specification. */
  readonly result: unknown;
  /** Of libcni 1.1 and later. */
  readonly netns?: string;
}

/** What is in the cache. */
export interface ResultCache {
  readonly entries: readonly CachedResult[];
  /** Files that could not be read, each with the reason. */
  readonly damaged: readonly string[];
}

const KIND = 'cniCacheV1';

function text(object: JsonObject, key: string): string {
  const value = object[key];
  if (typeof value !== 'string' || value === '') throw new Error(`${key} is missing`);
  return value;
}

/** Go writes bytes as base64 (encoding/json, Marshal). */
function parseConfig(base64: string): Conflist {
  const config = findObject(JSON.parse(Buffer.from(base64, 'base64').toString('utf8')));
  if (!config) throw new Error('config is no JSON object');
  return config;
}

/** Reads one file of the cache; throws an error that says what is wrong with it. */
export function parseCachedResult(json: string): CachedResult {
  const object = findObject(JSON.parse(json));
  if (object?.['kind'] !== KIND) throw new Error(`it is not of kind ${KIND}`);
  const ifname = text(object, 'ifName');
  const problem = ifnameProblem(ifname);
  if (problem !== undefined) throw new Error(`"${ifname}" cannot be a link name: ${problem}`);
  const { netns, result } = object;
  if (!findObject(result)) throw new Error('result is missing');
  return {
    network: text(object, 'networkName'),
    containerId: text(object, 'containerId'),
    ifname: ifname as Ifname,
    config: parseConfig(text(object, 'config')),
    result,
    ...(typeof netns === 'string' && netns !== '' ? { netns } : {}),
  };
}

/** The attachments that runtimes have made and not yet removed; a folder that does not exist holds none. */
export function readResultCache(folder: string = RESULT_CACHE_DIR): ResultCache {
  const entries: CachedResult[] = [];
  const damaged: string[] = [];
  let names: string[];
  try {
    names = readdirSync(folder).toSorted();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT')
      return { entries, damaged };
    throw error;
  }
  for (const name of names) {
    const path = `${folder}/${name}`;
    try {
      entries.push(parseCachedResult(readFileSync(path, 'utf8')));
    } catch (error) {
      damaged.push(`${path}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return { entries, damaged };
}
