import { canonicalJson } from '../../model/canonical.ts';
import { VERSION } from '../about.ts';
import type { Config } from '../cni/config.ts';
import { PLACE_KEYS } from '../cni/places.ts';
import type { State } from '../state.ts';

/** What a runtime adds to a configuration for one call, and what does not matter for what a pod gets. */
const NOT_CONFIG: ReadonlySet<string> = new Set([
  'cniVersion',
  'prevResult',
  'runtimeConfig',
  'args',
  'capabilities',
  'cni.dev/valid-attachments',
  'cni.dev/attachments',
  ...PLACE_KEYS,
]);

/** What `Config` holds; to be raised when keys come or go, so that nobody takes what was read before for the whole. */
export const CONFIG_FORM = 5;

/** The text that a configuration is known by: another version of this program may read it otherwise. */
function digestOf(raw: Readonly<Record<string, unknown>>): string {
  const lasting = Object.fromEntries(Object.entries(raw).filter(([key]) => !NOT_CONFIG.has(key)));
  return new Bun.CryptoHasher('sha256')
    .update(`${VERSION} ${CONFIG_FORM} ${canonicalJson(lasting)}`)
    .digest('hex');
}

/** A configuration with what its writer should know about it. */
export interface KnownConfig {
  readonly config: Config;
  /** Keys that were probably meant otherwise, as sentences. */
  readonly warnings: readonly string[];
}

/**
 * Reads a configuration. One that was read before is not checked again: to load the schema and to
 * check takes as long as all that is done in the kernel. Throws a CniError when it is not valid.
 */
export async function readConfig(
  state: State,
  raw: Readonly<Record<string, unknown>>,
  memory: 'remember' | 'only look',
): Promise<KnownConfig> {
  const digest = digestOf(raw);
  const known = state.findConfig(digest);
  if (known !== undefined) return JSON.parse(known) as KnownConfig;
  const { parseConfig } = await import('../cni/config.ts');
  const { CONFIG_KEYS, suspectKeys } = await import('../cni/keys.ts');
  const value = { config: parseConfig(raw), warnings: suspectKeys(raw, CONFIG_KEYS) };
  if (memory === 'remember') state.putConfig(digest, JSON.stringify(value));
  return value;
}
