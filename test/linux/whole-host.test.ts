/** Reading everything that decides about packets: what netlink tells of settings is what their files say. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import {
  HOST_NETNS,
  type Host,
  type NetnsName,
  type SysctlKey,
  getNetns,
} from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { linkSysctlKey } from '../../model/sysctl.ts';
import { WHOLE, observeWhole } from '../../plugin/process/whole-host.ts';
import { DECIDING_BRIDGE_SETTINGS, decidingSysctls } from '../../sim/sysctls.ts';
import { type RoutedHost, buildHost } from '../packets/routed-kernel.ts';
import { inNetns } from '../packets/sockets.ts';
import { requirement } from '../requirements.ts';

/** What can be set in a netns of the host: in `node`, which has a bridge, and in a pod, which has none. */
const KEYS: Readonly<Record<string, readonly SysctlKey[]>> = {
  node: [
    ...decidingSysctls(['cni0', 'v-a', 'ifb0', 'lo'] as Ifname[]),
    ...DECIDING_BRIDGE_SETTINGS,
  ],
  a: decidingSysctls(['eth0', 'lo'] as Ifname[]),
};

const settings = fc
  .constantFrom(
    ...Object.entries(KEYS).flatMap(([netns, keys]) => keys.map((key) => ({ netns, key }))),
  )
  .chain(({ netns, key }) =>
    fc.constantFrom('0', '1', '2').map((value) => ({
      netns,
      key,
      value: /^net\/bridge\/|ignore_all$/.test(key) && value === '2' ? '1' : value,
    })),
  );

function fileOf(key: SysctlKey): string | undefined {
  try {
    return readFileSync(`/proc/sys/${key}`, 'latin1').trimEnd();
  } catch {
    return undefined;
  }
}

/** The settings in a netns, each by its file. */
function byFiles(netns: NetnsName, keys: readonly SysctlKey[]): Record<SysctlKey, string> {
  return inNetns(netns, () => {
    const values: Record<SysctlKey, string> = {};
    for (const key of keys) {
      const value = fileOf(key);
      if (value !== undefined) values[key] = value;
    }
    return values;
  });
}

function readHost(names: readonly NetnsName[]): Host {
  const backend = makeLinuxBackend(WHOLE);
  try {
    return observeWhole(backend, names);
  } finally {
    backend.close();
  }
}

describe.skipIf(requirement('root'))('a whole host', () => {
  let host: RoutedHost | undefined;

  beforeAll(() => {
    host = buildHost();
    // Too small for IPv6, which it then has no settings of.
    const small = { op: 'link.set', netns: 'node', ifname: 'v-d' as Ifname } as const;
    host.execute({ ...small, set: { mtuBytes: 1000 } });
  });
  afterAll(() => host?.tearDown());

  it('has the settings that its files say, those of bridges where there is one', () => {
    if (!host) throw new Error('there is no host');
    const { execute, places } = host;
    const [node, pod] = [places.real('node'), places.real('a')];
    fc.assert(
      fc.property(fc.array(settings, { maxLength: 12 }), (changes) => {
        for (const change of changes) execute({ op: 'sysctl.set', ...change });
        const observed = readHost([node, pod]);
        for (const name of [node, pod]) {
          const { links, sysctls } = getNetns(observed, name);
          const keys = decidingSysctls(Object.keys(links) as Ifname[]);
          const ofBridges = name === node ? DECIDING_BRIDGE_SETTINGS : [];
          expect(sysctls).toEqual(byFiles(name, [...keys, ...ofBridges]));
        }
        const tooSmall = linkSysctlKey(6, 'v-d' as Ifname, 'disable_ipv6');
        expect(getNetns(observed, node).sysctls).not.toHaveProperty([tooSmall]);
      }),
      { numRuns: 30 },
    );
  });

  it('has those of bridges in its own netns before there is one', () => {
    if (!host) throw new Error('there is no host');
    const pod = host.places.real('a');
    const { links, sysctls } = getNetns(
      inNetns(pod, () => readHost([HOST_NETNS])),
      HOST_NETNS,
    );
    const keys = decidingSysctls(Object.keys(links) as Ifname[]);
    expect(sysctls).toEqual(byFiles(pod, [...keys, ...DECIDING_BRIDGE_SETTINGS]));
    expect(sysctls).toHaveProperty([DECIDING_BRIDGE_SETTINGS[0] ?? '']);
  });
});
