/** What the reference's plugin `tuning` sets in a pod's netns, asked for in its words. */
import type { SysctlKey } from '../../model/host.ts';
import { MTU_MAX_BYTES, MTU_MIN_BYTES } from '../../model/link.ts';
import { isNetSysctl } from '../../model/sysctl.ts';
import type { Tuning } from '../pod.ts';
import type { Config } from './config.ts';
import { CNI_ERROR, CniError } from './error.ts';

/** What may stand in the configuration and, before it, in `args.cni`. */
export interface TuningChoices {
  readonly sysctl?: Readonly<Record<string, string>>;
  /** Of both ends of the pod's link. */
  readonly mtu?: number;
  readonly promisc?: boolean;
  readonly allmulti?: boolean;
  readonly txQLen?: number;
}

/** Where the reference has the settings that may be changed, as regular expressions, one a line; all may where it is missing. */
export const ALLOW_LIST = '/etc/cni/tuning/allowlist.conf';

/** The word that stands for the pod's link in a setting's name. */
const IFNAME = 'IFNAME';

type Raw = Readonly<Record<string, unknown>>;

function refuse(problem: string, details = ''): never {
  throw new CniError(CNI_ERROR.invalidConfig, `invalid network configuration: ${problem}`, details);
}

const TX_QUEUE_LENGTH_MAX = 0xffffffff;

function wrong(key: string, value: unknown, wanted: string): never {
  return refuse(
    `args.cni.${key}: it must be ${wanted}, not ${JSON.stringify(value)?.slice(0, 80)}`,
  );
}

function isFlag(value: unknown): value is boolean | undefined {
  return value === undefined || typeof value === 'boolean';
}

function isLength(value: unknown): value is number {
  return (
    typeof value === 'number' &&
    Number.isInteger(value) &&
    value >= 0 &&
    value <= TX_QUEUE_LENGTH_MAX
  );
}

function isMtu(value: unknown): value is number {
  return isLength(value) && value >= MTU_MIN_BYTES && value <= MTU_MAX_BYTES;
}

/** Reads `args.cni` as far as it is about this; throws a CniError of code 7. */
export function readTuning(raw: Raw): TuningChoices {
  const { sysctl, mtu, promisc, allmulti, txQLen } = raw;
  if (mtu !== undefined && !isMtu(mtu))
    return wrong('mtu', mtu, `a number from ${MTU_MIN_BYTES} to ${MTU_MAX_BYTES}`);
  if (!isFlag(promisc)) return wrong('promisc', promisc, 'true or false');
  if (!isFlag(allmulti)) return wrong('allmulti', allmulti, 'true or false');
  if (txQLen !== undefined && !isLength(txQLen))
    return wrong('txQLen', txQLen, `a number up to ${TX_QUEUE_LENGTH_MAX}`);
  const isMap = typeof sysctl === 'object' && sysctl !== null && !Array.isArray(sysctl);
  if (sysctl !== undefined && !(isMap && Object.values(sysctl).every((v) => typeof v === 'string')))
    return wrong('sysctl', sysctl, 'an object of texts');
  return {
    ...(mtu === undefined ? {} : { mtu }),
    ...(sysctl === undefined ? {} : { sysctl: sysctl as Record<string, string> }),
    ...(promisc === undefined ? {} : { promisc }),
    ...(allmulti === undefined ? {} : { allmulti }),
    ...(txQLen === undefined ? {} : { txQLen }),
  };
}

/**
 * The path of a setting below /proc/sys, which has to be one of the network. Points become slashes before the link's name
 * comes in, which may have points of its own.
 */
function sysctlKey(name: string, ifname: string): SysctlKey {
  const path = name.replaceAll('.', '/').replace(IFNAME, ifname);
  if (!isNetSysctl(path)) refuse(`invalid net sysctl key: "${name}"`);
  return path;
}

/** Refuses what no line of the allow list matches. */
function checkAllowed(name: string, allowList: string | undefined): void {
  const lines = (allowList?.split('\n') ?? [])
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const isAllowed = (line: string): boolean => {
    try {
      return new RegExp(line).test(name);
    } catch {
      return refuse(`${ALLOW_LIST}: "${line}" is no regular expression`);
    }
  };
  if (allowList !== undefined && !lines.some(isAllowed))
    refuse(
      `sysctl ${name} is not allowed`,
      `Only the following sysctls are allowed: [${lines.join(' ')}]`,
    );
}

/** What a pod gets but for its MTU; undefined when nothing is asked for. Throws a CniError of code 7. */
export function tuningOf(
  config: Config,
  choices: TuningChoices,
  ifname: string,
  readText: (path: string) => string | undefined,
): Tuning | undefined {
  const asked = Object.entries({ ...config.sysctl, ...choices.sysctl });
  const sysctls: Record<SysctlKey, string> = {};
  const allowList = asked.length === 0 ? undefined : readText(ALLOW_LIST);
  for (const [name, value] of asked) {
    checkAllowed(name, allowList);
    const key = sysctlKey(name, ifname);
    if (Object.hasOwn(sysctls, key)) refuse(`duplicated sysctl keys are not allowed: ${key}`);
    // As the kernel shows several values of one setting.
    sysctls[key] = value.trim().replaceAll(/\s+/g, '\t');
  }
  const { promisc, allmulti, txQLen } = { ...config, ...choices };
  const tuning: Tuning = {
    ...(asked.length === 0 ? {} : { sysctls }),
    ...(promisc ? { promiscuous: true as const } : {}),
    ...(allmulti ? { allMulticast: true as const } : {}),
    ...(txQLen === undefined ? {} : { txQueueLength: txQLen }),
  };
  return Object.keys(tuning).length === 0 ? undefined : tuning;
}
