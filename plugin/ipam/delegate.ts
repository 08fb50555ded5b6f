/** Addresses from another IPAM plugin (CNI specification, section 4, "Plugin Delegation"). */
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { AttachmentKey } from '../cni/request.ts';

/** One call of another plugin. */
export interface DelegateCall {
  /** The plugin's name, looked for in CNI_PATH. */
  readonly type: string;
  readonly verb: 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS';
  /** The configuration, whole, as JSON. */
  readonly stdin: string;
  /** Undefined for calls about a network. */
  readonly key: AttachmentKey | undefined;
  readonly netns: string;
}

/** The plugin is not there: it has done nothing. */
export class MissingPluginError extends CniError {
  constructor(type: string, folders: readonly string[]) {
    super(
      CNI_ERROR.invalidConfig,
      `failed to find plugin "${type}" in path [${folders.join(' ')}]`,
    );
  }
}

/** Runs another plugin: its answer as JSON, undefined when it answered nothing. Throws its own error as a CniError. */
export type Delegate = (call: DelegateCall) => unknown;

/** Is it the answer of a plugin that does not know the verb, as older ones do not (CNI's skel.go)? */
export function isUnknownVerb(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith('unknown CNI_COMMAND');
}

/** The `ipam.type` of the addresses that the plugin itself hands out. */
export const OWN_IPAM = 'cube-ipam';

/** The IPAM plugin that gives its address back only while the pod's link is there: it tells the server by it. */
export const NEEDS_LINK: ReadonlySet<string> = new Set(['dhcp']);

/** The `type` of the IPAM plugin in a raw configuration, undefined when there is none or it is ours. */
export function delegateOf(config: Readonly<Record<string, unknown>>): string | undefined {
  const { ipam } = config;
  const type = ipam !== null && typeof ipam === 'object' ? (ipam as { type?: unknown }).type : '';
  return typeof type === 'string' && type !== '' && type !== OWN_IPAM ? type : undefined;
}
