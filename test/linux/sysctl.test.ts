/** Several sysctls at once, some by way of a folder: each has the value that its file has, and what is not there is left out. */
import { existsSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addNetns, delNetns } from '../../backends/linux/netns.ts';
import { readSysctls, writeSysctl } from '../../backends/linux/sysctl.ts';
import type { SysctlKey } from '../../model/host.ts';
import { inNetns } from '../packets/sockets.ts';
import { requirement } from '../requirements.ts';

const NETNS = 'cube-sysctls';

const KEYS: readonly SysctlKey[] = [
  'kernel/osrelease',
  'net/core/somaxconn',
  'net/core/none',
  'net/ipv4/ip_forward',
  'net/ipv4/conf/all/rp_filter',
  'net/ipv4/conf/all/forwarding',
  'net/ipv4/conf/lo/rp_filter',
  'net/ipv4/conf/none/rp_filter',
  'net/ipv4/tcp_rmem',
  'net/ipv6/conf/all/forwarding',
  'net/ipv6/neigh/lo/retrans_time_ms',
  'net/none/conf/all/forwarding',
  'net/none/conf/all/rp_filter',
];

function byFiles(keys: readonly SysctlKey[]): Record<SysctlKey, string> {
  const there = keys.filter((key) => existsSync(`/proc/sys/${key}`));
  return Object.fromEntries(
    there.map((key) => [key, readFileSync(`/proc/sys/${key}`, 'latin1').replace(/\n$/, '')]),
  );
}

describe.skipIf(requirement('root'))('sysctls', () => {
  beforeAll(() => {
    const fault = addNetns(NETNS);
    if (fault) throw new Error(fault.errno);
    // So that this netns can be told from the one that the test is in.
    const forward = readFileSync('/proc/sys/net/ipv4/ip_forward', 'latin1').trim();
    inNetns(NETNS, () => writeSysctl('net/ipv4/ip_forward', forward === '1' ? '0' : '1'));
  });
  afterAll(() => {
    delNetns(NETNS);
  });

  it('are those of the netns in which they are read', () => {
    fc.assert(
      fc.property(fc.subarray([...KEYS]), (keys) => {
        const here = readSysctls(keys);
        expect(here).toEqual(byFiles(keys));
        const there = inNetns(NETNS, () => ({ read: readSysctls(keys), files: byFiles(keys) }));
        expect(there.read).toEqual(there.files);
        const forwards = keys.includes('net/ipv4/ip_forward');
        if (forwards) expect(there.read).not.toEqual(here);
      }),
    );
  });
});
