import { spawnSync } from 'node:child_process';
import { accessSync, appendFileSync, constants, existsSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { expect, inject } from 'vitest';
import type { Skip } from './skip-reporter.ts';

/** Each answers undefined when this machine has it, else what is missing. */
const requirements = {
  linux,
  root: (): string | undefined => linux() ?? capabilities(),
  iproute2: () => linux() ?? commands('ip', 'bridge', 'tc'),
  nftables: () => linux() ?? commands('nft'),
  'nft-1.0': () => linux() ?? commands('nft') ?? nftPrints('v1.0.'),
  conntrack: () => linux() ?? commands('conntrack'),
  tcpdump: () => linux() ?? commands('tcpdump'),
  dnsmasq: () => linux() ?? commands('dnsmasq'),
  iptables: () => linux() ?? commands('iptables'),
  'iptables-legacy': () =>
    linux() ?? commands('iptables-legacy', 'ip6tables-legacy') ?? legacyTables(),
  'iptables-nft': () =>
    linux() ??
    commands(
      'iptables-nft-restore',
      'ip6tables-nft-restore',
      'iptables-nft-save',
      'ip6tables-nft-save',
    ),
  tracefs: () =>
    linux() ??
    (/\ttracefs$/m.test(readFileSync('/proc/filesystems', 'utf8'))
      ? undefined
      : 'needs a kernel with tracepoints (CONFIG_TRACING)'),
  gcc: () => linux() ?? commands('gcc'),
  busybox: () => linux() ?? commands('busybox'),
  containerd: () => linux() ?? commands('containerd', 'runc'),
  podman: () => linux() ?? commands('podman', 'conmon', 'runc'),
  'cni-plugins': () =>
    existsSync('/usr/lib/cni/host-local')
      ? undefined
      : 'needs the CNI reference plugins in /usr/lib/cni (containernetworking-plugins)',
  'bridge-vlans': () => (bridgesKnowVlans() ? undefined : NO_VLANS),
  'no-bridge-vlans': () =>
    bridgesKnowVlans() ? 'needs a kernel without VLAN filtering of bridges' : undefined,
  executable: () =>
    existsSync(join(import.meta.dirname, '../dist/cube-cni'))
      ? undefined
      : 'needs dist/cube-cni: run npm run build',
} satisfies Record<string, () => string | undefined>;

/** What a suite may ask of the machine it runs on. */
export type Requirement = keyof typeof requirements;

/**
 * The reason why this machine cannot run a suite, or undefined when it can, for `describe.skipIf(requirement('root'))`.
 * The first unmet one of several is the answer. It is also printed at the end of the run.
 */
export function requirement(...names: readonly Requirement[]): string | undefined {
  for (const name of names) {
    const reason = requirements[name]();
    if (reason !== undefined) {
      const skip: Skip = { file: expect.getState().testPath ?? 'unknown file', reason };
      appendFileSync(inject('skipFile'), `${JSON.stringify(skip)}\n`);
      return reason;
    }
  }
  return undefined;
}

/** Is it an nft of these versions? Others have other words for some rules. */
function nftPrints(version: string): string | undefined {
  const { stdout } = spawnSync('nft', ['--version'], { encoding: 'utf8' });
  return stdout.includes(version) ? undefined : `needs nft ${version}x, in whose words rules read`;
}

const NO_VLANS =
  'needs VLAN filtering of bridges (CONFIG_BRIDGE_VLAN_FILTERING): npm run test:debian has it';

let vlans: boolean | undefined;

function ip(args: string): boolean {
  return spawnSync('ip', args.split(' ')).status === 0;
}

/** Can a bridge be made that filters VLANs? Tried once, in a netns of its own. */
function bridgesKnowVlans(): boolean {
  const netns = `cube-vlan-probe-${process.pid}`;
  vlans ??= ip(`netns add ${netns}`) && ip(`-n ${netns} link add br0 type bridge vlan_filtering 1`);
  ip(`netns del ${netns}`);
  return vlans;
}

let knowsLegacy: boolean | undefined;

/** Has the kernel the tables of iptables-legacy? Tried once, in a netns of its own. */
function legacyTables(): string | undefined {
  const netns = `cube-legacy-probe-${process.pid}`;
  knowsLegacy ??=
    ip(`netns add ${netns}`) &&
    ['iptables', 'ip6tables'].every((name) => ip(`netns exec ${netns} ${name}-legacy -S`));
  ip(`netns del ${netns}`);
  return knowsLegacy
    ? undefined
    : 'needs a kernel with the tables of iptables-legacy (CONFIG_IP_NF_IPTABLES_LEGACY)';
}

function linux(): string | undefined {
  return process.platform === 'linux' ? undefined : `needs Linux, this is ${process.platform}`;
}

function commands(...names: readonly string[]): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  const missing = names.filter((name) => !folders.some((folder) => executable(join(folder, name))));
  return missing.length === 0 ? undefined : `needs ${missing.join(', ')} in PATH`;
}

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** In a container uid 0 may lack them, and then every test would fail with EPERM instead of being skipped. */
function capabilities(): string | undefined {
  if (process.getuid?.() !== 0) return `needs root, this is uid ${process.getuid?.()}`;
  const status = readFileSync('/proc/self/status', 'utf8');
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  const missing = Object.entries({ CAP_NET_ADMIN: 12n, CAP_NET_RAW: 13n, CAP_SYS_ADMIN: 21n })
    .filter(([, bit]) => ((effective >> bit) & 1n) === 0n)
    .map(([name]) => name);
  return missing.length === 0 ? undefined : `needs root with ${missing.join(', ')}`;
}
