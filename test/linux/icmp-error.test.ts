/** Who is told by which ICMP error that a datagram does not arrive: the simulator's cases on the kernel (K-7.7). */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseIp } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import type { ErrorKind } from '../../sim/frame.ts';
import type { Datagram, Told } from '../packets/error-prober.ts';
import { type RoutedHost, buildHost } from '../packets/routed-kernel.ts';
import { requirement } from '../requirements.ts';
import {
  ERRING_CASES,
  ERRING_OPS,
  type ErringCase,
  MASQUERADE,
  MASQUERADED_CASES,
} from '../sim/icmp-errors.ts';
import { LISTEN_PORT } from '../sim/rulesets.ts';

/** Type and code by what they say (include/uapi/linux/icmp.h, icmpv6.h). */
const NUMBERS: Readonly<Record<4 | 6, Partial<Record<ErrorKind, string>>>> = {
  4: {
    'time exceeded': '11/0',
    'net unreachable': '3/0',
    'host unreachable': '3/1',
    'too big': '3/4',
    'admin prohibited': '3/13',
  },
  6: {
    'time exceeded': '3/0',
    'net unreachable': '1/0',
    'host unreachable': '1/3',
    'too big': '2/0',
    'admin prohibited': '1/1',
  },
};

/** Longer than a neighbour that is asked three times, every tenth of a second. */
const WAIT_MS = 900;
const SECONDS = 30;

/** Neighbours are asked faster than by default, and no error of IPv6 is held back for those before it; of routes that end packets IPv4 tells five at once (ip_error). */
const QUICK: readonly Op[] = [
  ...['ipv4', 'ipv6'].map((family): Op => ({
    op: 'sysctl.set',
    netns: 'node',
    key: `net/${family}/neigh/cni1/retrans_time_ms`,
    value: '100',
  })),
  { op: 'sysctl.set', netns: 'node', key: 'net/ipv6/icmp/ratelimit', value: '0' },
];

function askAll(host: RoutedHost, cases: readonly ErringCase[]): readonly (Told | null)[] {
  const questions = cases.map(({ destination, ttl = 64, payloadBytes = 0 }): Datagram => ({
    destination: parseIp(destination),
    port: LISTEN_PORT,
    ttl,
    payloadBytes,
  }));
  const script = join(import.meta.dirname, '../packets/error-prober.ts');
  const words = [process.execPath, script, JSON.stringify(questions), `${WAIT_MS}`];
  const { stdout, stderr } = spawnSync('ip', ['netns', 'exec', host.places.real('a'), ...words]);
  if (stderr.length > 0) throw new Error(stderr.toString());
  return JSON.parse(stdout.toString()) as (Told | null)[];
}

function say({ name, destination, error }: ErringCase): unknown {
  if (error === null) return { name, told: null };
  const [from, kind, mtuBytes = 0] = error;
  return { name, told: [from, NUMBERS[destination.includes(':') ? 6 : 4][kind], mtuBytes] };
}

describe.skipIf(requirement('root', 'iproute2'))('the sender is told by the kernel', () => {
  let host: RoutedHost | undefined;

  beforeAll(() => {
    host = buildHost();
    for (const op of [...QUICK, ...ERRING_OPS]) host.execute(op);
  }, SECONDS * 1000);

  afterAll(() => host?.tearDown());

  function answersTo(cases: readonly ErringCase[]): readonly unknown[] {
    if (!host) throw new Error('there is no host');
    const told = askAll(host, cases);
    return cases.map(({ name }, at) => {
      const each = told[at] ?? null;
      return { name, told: each && [each.from, `${each.type}/${each.code}`, each.mtuBytes] };
    });
  }

  it(
    'as the simulator says',
    () => expect(answersTo(ERRING_CASES)).toEqual(ERRING_CASES.map(say)),
    SECONDS * 1000,
  );

  it(
    'through a masquerade too',
    () => {
      host?.execute(MASQUERADE);
      expect(answersTo(MASQUERADED_CASES)).toEqual(MASQUERADED_CASES.map(say));
    },
    SECONDS * 1000,
  );
});
