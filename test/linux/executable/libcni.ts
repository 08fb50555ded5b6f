/**
 * A client that calls the executable as libcni does: what each call of a chain of plugins gets, in which order, and
 * what is remembered between them (libcni/api.go of github.com/containernetworking/cni: AddNetworkList and so on).
 * containerd, CRI-O, podman and nerdctl all call plugins through it.
 */
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type Answer, EXECUTABLE, type Node, type Result, resultOf } from './node.ts';

type Json = Readonly<Record<string, unknown>>;

/** A network configuration list, as it is in a .conflist file. */
export interface ConfigList {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly (Json & {
    readonly type: string;
    readonly capabilities?: Readonly<Record<string, boolean>>;
  })[];
}

/** What a runtime says of one attachment (`RuntimeConf`). */
export interface RuntimeConf {
  readonly containerId: string;
  /** A path, or nothing: DEL may come without. */
  readonly netns: string;
  readonly ifname: string;
  /** CNI_ARGS, in order. */
  readonly args: readonly (readonly [string, string])[];
  /** Each goes to those plugins that declare the capability of this name. */
  readonly capabilityArgs: Json;
}

/** An attachment as GC names it (`GCAttachment` in pkg/types/types.go). */
export interface ValidAttachment {
  readonly containerID: string;
  readonly ifname: string;
}

/** What an attachment was made with, and its result. */
interface Cached {
  readonly list: ConfigList;
  readonly conf: RuntimeConf;
  readonly result: Json;
}

export interface Libcni {
  /** `ValidateNetworkList`: asks every plugin for its versions; throws when one has not the list's. */
  readonly validate: (list: ConfigList) => void;
  readonly add: (list: ConfigList, conf: RuntimeConf) => Result;
  readonly check: (list: ConfigList, conf: RuntimeConf) => void;
  readonly del: (list: ConfigList, conf: RuntimeConf) => void;
  /** DEL of what is remembered and not valid; then GC, which tells which are valid. */
  readonly gc: (list: ConfigList, valid: readonly ValidAttachment[]) => void;
  readonly status: (list: ConfigList) => void;
  /** `GetNetworkListCachedConfig`: what an attachment was made with; the netns is the caller's. */
  readonly cached: (
    network: string,
    conf: RuntimeConf,
  ) => { readonly list: ConfigList; readonly conf: RuntimeConf } | undefined;
  /** Loses what the cache has of an attachment, or never wrote it: the runtime was killed right after ADD. */
  readonly forget: (network: string, conf: RuntimeConf) => void;
}

/** From which version of the list on libcni calls a verb, or gives DEL a result. */
const SINCE = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0', prevResult: '0.4.0' } as const;

const NO_ATTACHMENT: RuntimeConf = {
  containerId: '',
  netns: '',
  ifname: '',
  args: [],
  capabilityArgs: {},
};

function isSince(version: string, feature: keyof typeof SINCE): boolean {
  return version.localeCompare(SINCE[feature], 'en', { numeric: true }) >= 0;
}

/** Go writes the keys of a map in order. */
function sorted(object: Json): Json {
  return Object.fromEntries(Object.entries(object).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/** The name of an attachment in the cache. */
function keyOf(network: string, { containerId, ifname }: RuntimeConf): string {
  return `${network}-${containerId}-${ifname}`;
}

/** The configuration of one plugin of a list (`buildOneConfig`, `injectRuntimeConfig`). */
function configOf(
  { name, cniVersion }: ConfigList,
  plugin: ConfigList['plugins'][number],
  { capabilityArgs }: RuntimeConf,
  prevResult: Json | undefined,
): Json {
  const granted = Object.entries(capabilityArgs).filter(([each]) => plugin.capabilities?.[each]);
  return {
    ...plugin,
    name,
    cniVersion,
    ...(prevResult === undefined ? {} : { prevResult }),
    ...(granted.length === 0 ? {} : { runtimeConfig: Object.fromEntries(granted) }),
  };
}

/** Makes a client whose plugin folder holds the executable under its own name and as `loopback`. */
export function makeLibcni(node: Node): Libcni {
  const bin = join(node.folder, 'bin');
  mkdirSync(bin);
  for (const type of ['cube-cni', 'loopback']) symlinkSync(EXECUTABLE, join(bin, type));
  const cache = new Map<string, Cached>();

  /** Runs a plugin with all six variables, of which some may be empty (pkg/invoke/args.go). */
  function exec(verb: string, type: string, conf: RuntimeConf, config: Json, path = bin): Answer {
    return node.call(verb, {
      program: join(bin, type),
      containerId: conf.containerId,
      netns: conf.netns,
      ifname: conf.ifname,
      env: { CNI_ARGS: conf.args.map((pair) => pair.join('=')).join(';'), CNI_PATH: path },
      config: sorted(config),
    });
  }

  /** A call that has no result; throws the plugin's error. */
  function execQuietly(verb: string, type: string, conf: RuntimeConf, config: Json): void {
    const { status, stdout, stderr } = exec(verb, type, conf, config);
    if (status !== 0 || stdout !== '' || stderr !== '')
      throw new Error(`plugin type="${type}" answered ${verb}: ${stdout}${stderr}`);
  }

  const del: Libcni['del'] = (list, conf) => {
    const known = isSince(list.cniVersion, 'prevResult')
      ? cache.get(keyOf(list.name, conf))
      : undefined;
    for (const plugin of list.plugins.toReversed())
      execQuietly('DEL', plugin.type, conf, configOf(list, plugin, conf, known?.result));
    cache.delete(keyOf(list.name, conf));
  };

  return {
    validate: (list) => {
      for (const { type } of list.plugins) {
        // Go's own words for what VERSION does not need (pkg/invoke/exec.go, GetVersionInfo).
        const dummy = { ...NO_ATTACHMENT, netns: 'dummy', ifname: 'dummy' };
        const answer = exec('VERSION', type, dummy, { cniVersion: '1.1.0' }, 'dummy');
        if (answer.status !== 0 || answer.stderr !== '')
          throw new Error(`VERSION answered ${answer.status}: ${answer.stdout}${answer.stderr}`);
        const { supportedVersions } = JSON.parse(answer.stdout) as { supportedVersions: string[] };
        if (!supportedVersions.includes(list.cniVersion))
          throw new Error(`plugin ${type} does not support config version ${list.cniVersion}`);
      }
    },
    add: (list, conf) => {
      let result: Result | undefined;
      // A result that went through Go always has `dns`.
      for (const plugin of list.plugins) {
        const prevResult = result && { dns: {}, ...result };
        const config = configOf(list, plugin, conf, prevResult);
        result = resultOf(exec('ADD', plugin.type, conf, config));
      }
      if (result === undefined) throw new Error(`${list.name} has no plugins`);
      cache.set(keyOf(list.name, conf), { list, conf, result: { dns: {}, ...result } });
      return result;
    },
    check: (list, conf) => {
      if (!isSince(list.cniVersion, 'CHECK')) throw new Error(`${list.cniVersion} has no CHECK`);
      const known = cache.get(keyOf(list.name, conf));
      for (const plugin of list.plugins)
        execQuietly('CHECK', plugin.type, conf, configOf(list, plugin, conf, known?.result));
    },
    del,
    gc: (list, valid) => {
      const isValid = ({ containerId, ifname }: RuntimeConf): boolean =>
        valid.some((each) => each.containerID === containerId && each.ifname === ifname);
      for (const { list: its, conf } of cache.values())
        if (its.name === list.name && !isValid(conf)) del(list, conf);
      if (!isSince(list.cniVersion, 'GC')) return;
      for (const plugin of list.plugins)
        execQuietly('GC', plugin.type, NO_ATTACHMENT, {
          ...configOf(list, plugin, NO_ATTACHMENT, undefined),
          // A list in Go that nobody put anything into is written as null (ocicni makes it so).
          'cni.dev/valid-attachments': valid.length === 0 ? null : valid,
        });
    },
    status: (list) => {
      if (!isSince(list.cniVersion, 'STATUS')) return;
      for (const plugin of list.plugins) {
        const config = configOf(list, plugin, NO_ATTACHMENT, undefined);
        execQuietly('STATUS', plugin.type, NO_ATTACHMENT, config);
      }
    },
    cached: (network, conf) => {
      const known = cache.get(keyOf(network, conf));
      return known && { list: known.list, conf: { ...known.conf, netns: conf.netns } };
    },
    forget: (network, conf) => {
      cache.delete(keyOf(network, conf));
    },
  };
}
