/** Reading everything that decides about packets: what a dump of links tells of their settings is what their files say. */
import { existsSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import type { Ifname } from '../../model/ifname.ts';
import { linkSysctlKey } from '../../model/sysctl.ts';
import { WHOLE, observeWhole } from '../../plugin/process/whole-host.ts';
import { DECIDING_LINK_SETTINGS, decidingSysctls } from '../../sim/sysctls.ts';
import { type RoutedHost, buildHost } from '../packets/routed-kernel.ts';
import { inNetns } from '../packets/sockets.ts';
import { requirement } from '../requirements.ts';

const LINKS = ['cni0', 'v-a', 'ifb0', 'lo'] as Ifname[];

const settings = fc
  .record({ ifname: fc.constantFrom(...LINKS), value: fc.constantFrom('0', '1') })
  .chain(({ ifname, value }) =>
    fc
      .constantFrom(
        ...DECIDING_LINK_SETTINGS[4].map((name) => linkSysctlKey(4, ifname, name)),
        ...DECIDING_LINK_SETTINGS[6].map((name) => linkSysctlKey(6, ifname, name)),
      )
      .map((key) => ({ key, value })),
  );

describe.skipIf(requirement('root'))('a whole host', () => {
  let host: RoutedHost | undefined;

  beforeAll(() => {
    host = buildHost();
    // Too small for IPv6, which it then has no settings of.
    const small = { op: 'link.set', netns: 'node', ifname: 'v-d' as Ifname } as const;
    host.execute({ ...small, set: { mtuBytes: 1000 } });
  });
  afterAll(() => host?.tearDown());

  it('has the settings that its files say', () => {
    if (!host) throw new Error('there is no host');
    const { execute, places } = host;
    const node = places.real('node');
    fc.assert(
      fc.property(fc.array(settings, { maxLength: 12 }), (changes) => {
        for (const { key, value } of changes)
          execute({ op: 'sysctl.set', netns: 'node', key, value });
        const backend = makeLinuxBackend(WHOLE);
        const netns = observeWhole(backend, [node]).netns[node];
        backend.close();
        const keys = decidingSysctls(Object.keys(netns?.links ?? {}) as Ifname[]);
        const files = inNetns(node, () =>
          keys.flatMap((key) => {
            const file = `/proc/sys/${key}`;
            return existsSync(file) ? [[key, readFileSync(file, 'latin1').trimEnd()]] : [];
          }),
        );
        expect(netns?.sysctls).toEqual(Object.fromEntries(files));
        expect(netns?.sysctls).not.toHaveProperty(['net/ipv6/conf/v-d/disable_ipv6']);
      }),
      { numRuns: 20 },
    );
  });
});
