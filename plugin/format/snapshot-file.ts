import * as z from 'zod/mini';
import type { Host } from '../../model/host.ts';
import { formatKernel } from '../../model/kernel-profile.ts';
import type { LegacyTables, WholeHost } from '../../sim/legacy-table.ts';
import { ifname, ip, mac, prefix } from './values.ts';

/** The version of the format: the number before the point changes when a reader of the old one would go wrong. */
const SNAPSHOT_FORMAT_VERSION = '1.2';

/** A host's network state as `cube-cni snapshot` writes it. */
export interface SnapshotFile {
  readonly formatVersion: string;
  /** The kernel it was read from, `Linux 6.18.44`. */
  readonly kernel: string;
  readonly host: Host;
  /** The tables of iptables-legacy that may do something to packets; since 1.1, and absent where there are none. Since 1.2 also those of nft that are not read. */
  readonly legacyTables?: LegacyTables;
}

/** The text of a snapshot. */
export function formatSnapshot({ host, legacyTables }: WholeHost): string {
  const file: SnapshotFile = {
    formatVersion: SNAPSHOT_FORMAT_VERSION,
    kernel: formatKernel(host.kernel),
    host,
    ...(Object.keys(legacyTables).length === 0 ? {} : { legacyTables }),
  };
  return `${JSON.stringify(file, null, 2)}\n`;
}

const ref = z.looseObject({ netns: z.string(), ifname });
const link = z.looseObject({
  kind: z.enum(['loopback', 'veth', 'bridge', 'ifb', 'vxlan', 'macvlan', 'device']),
  ifname,
  mac: z.nullable(mac),
  mtuBytes: z.int(),
  up: z.boolean(),
  promiscuous: z.boolean(),
  alias: z.string(),
  port: z.nullable(z.looseObject({ master: ifname, hairpin: z.boolean(), isolated: z.boolean() })),
  addresses: z.array(z.looseObject({ ip, prefixLength: z.int(), scope: z.string() })),
  neighbours: z.array(z.looseObject({ ip, mac })),
  uppers: z.optional(z.array(ref)),
  peer: z.optional(z.nullable(ref)),
});
const route = z.looseObject({
  destination: prefix,
  type: z.string(),
  table: z.int(),
  metric: z.int(),
  gateway: z.nullable(ip),
  device: z.nullable(ifname),
  nextHops: z.optional(
    z.array(z.looseObject({ gateway: z.nullable(ip), device: z.nullable(ifname) })),
  ),
});
const chain = z.looseObject({
  name: z.string(),
  hook: z.nullable(z.looseObject({ type: z.string(), hook: z.string(), priority: z.number() })),
  rules: z.array(z.looseObject({ statements: z.array(z.looseObject({ kind: z.string() })) })),
});
const table = z.looseObject({
  family: z.enum(['ip', 'ip6', 'inet', 'bridge']),
  name: z.string(),
  chains: z.record(z.string(), chain),
  sets: z.record(z.string(), z.looseObject({ elements: z.record(z.string(), z.looseObject({})) })),
});
const legacyTable = z.looseObject({
  program: z.optional(z.literal('nft')),
  family: z.enum(['ip', 'ip6', 'arp', 'netdev', 'inet']),
  name: z.string(),
  chains: z.array(
    z.looseObject({
      hook: z.enum([
        'prerouting',
        'input',
        'forward',
        'output',
        'postrouting',
        'ingress',
        'egress',
      ]),
      devices: z.optional(z.array(z.string())),
      rules: z.int(),
      policy: z.enum(['accept', 'drop']),
    }),
  ),
});
const snapshot = z.looseObject({
  formatVersion: z.string(),
  host: z.looseObject({
    netns: z.record(
      z.string(),
      z.looseObject({
        links: z.record(z.string(), link),
        routes: z.array(route),
        sysctls: z.record(z.string(), z.string()),
        nftables: z.record(z.string(), table),
        ifindexes: z.optional(z.record(ifname, z.int())),
      }),
    ),
  }),
  legacyTables: z.optional(z.record(z.string(), z.array(legacyTable))),
});

/** Reads a snapshot from a file of this name. Throws, with the place and what is wrong there, for anything else. */
export function parseSnapshot(text: string, name: string): WholeHost {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`${name} is no whole snapshot: ${why}`, { cause: error });
  }
  const version = (value as Partial<SnapshotFile> | null)?.formatVersion;
  if (typeof version !== 'string')
    throw new Error(
      `${name} is no snapshot: it has no formatVersion (cube-cni snapshot makes one)`,
    );
  if (version.split('.')[0] !== SNAPSHOT_FORMAT_VERSION.split('.')[0])
    throw new Error(
      `${name} is a snapshot of format ${version}, and this program reads ${SNAPSHOT_FORMAT_VERSION}`,
    );
  const read = snapshot.safeParse(value);
  if (!read.success) {
    const [issue] = read.error.issues;
    const place = issue?.path.map(String).join(' › ') ?? '';
    throw new Error(`${name} is a damaged snapshot: ${place}: ${issue?.message ?? 'it is wrong'}`);
  }
  const { host, legacyTables = {} } = value as SnapshotFile;
  return { host, legacyTables };
}

/**
 * What follows from the host of a snapshot. That its values are of the right kinds was looked at when it was read; whether they
 * fit together shows when they are used. Throws an error that names the file where they do not.
 */
export function fromSnapshot<T>(name: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`${name} is a damaged snapshot: its parts do not fit together: ${why}`, {
      cause: error,
    });
  }
}
