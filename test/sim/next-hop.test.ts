/** Routes by several next hops: a packet takes one by chance, and what does not hang on that is known. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Host } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { parsePrefix } from '../../model/prefix.ts';
import { type NextHop, type Route, makeRoute } from '../../model/route.ts';
import { formatJourney, travel } from '../../sim/journey.ts';
import { outcomeOf, probe } from '../../sim/probe.ts';
import type { Verdict } from '../../sim/trace.ts';
import { makeWorld } from '../../sim/world.ts';
import { ROUTED, carriedOut } from './hosts.ts';
import { addressOps } from './pods.ts';

const MANY = parseIp('10.99.0.9');

/** Of the routed host c and d have the address, and what is no pod nobody. */
const { host: HOST } = carriedOut(ROUTED, [
  ...addressOps('c', 'eth0', '10.99.0.9/32'),
  ...addressOps('d', 'eth0', '10.99.0.9/32'),
]);

function hop(gateway: string, device: string, dead = false): NextHop {
  const plain = { gateway: parseIp(gateway), device: device as Ifname, weight: 1 };
  return dead ? { ...plain, dead: true } : plain;
}

const [TO_C, TO_D, TO_NOBODY] = [
  hop('10.244.2.4', 'cni1'),
  hop('10.244.3.2', 'v-d'),
  hop('10.244.2.77', 'cni1'),
] as const;

function withRoute(change: Partial<Route>): Host {
  const { node } = HOST.netns;
  if (!node) throw new Error('there is no node');
  const plain = makeRoute({ destination: parsePrefix('10.99.0.9/32'), device: 'cni1' as Ifname });
  const routes = [...node.routes, { ...plain, ...change }];
  return { ...HOST, netns: { ...HOST.netns, node: { ...node, routes } } };
}

function byHops(nextHops: readonly NextHop[]): Host {
  return withRoute({ gateway: null, device: null, nextHops });
}

function kindOn(host: Host, netns: string): Verdict['kind'] {
  return probe(makeWorld(host), { netns, destination: MANY }).verdict.kind;
}

const nextHops = fc.array(
  fc
    .record({ way: fc.constantFrom(TO_C, TO_D, TO_NOBODY), dead: fc.boolean() })
    .map(({ way, dead }): NextHop => (dead ? { ...way, dead: true } : way)),
  { minLength: 1, maxLength: 4 },
);

describe('a route by several next hops', () => {
  it('leads as each of them does, where that is the same', () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(nextHops, fc.constantFrom('node', 'a', 'b'), (hops, netns) => {
        const kinds = new Set(
          hops
            .filter(({ dead }) => !dead)
            .map(({ gateway, device }) => kindOn(withRoute({ gateway, device }), netns)),
        );
        // One whose links are all down is none.
        const [only = kindOn(HOST, netns)] = kinds;
        const expected = kinds.size > 1 ? 'unknown' : only;
        seen.add(expected);
        const host = byHops(hops);
        expect(kindOn(host, netns)).toBe(expected);
        const request = { netns, destination: MANY };
        expect(outcomeOf(makeWorld(host), request).verdict.kind).toBe(expected);
      }),
    );
    expect([...seen].toSorted()).toEqual(['delivered', 'dropped', 'unknown']);
  });

  it('is a way back by any of them', () => {
    const { host } = carriedOut(byHops([TO_C, TO_D]), [
      { op: 'sysctl.set', netns: 'node', key: 'net/ipv4/conf/all/rp_filter', value: '1' },
    ]);
    const request = { netns: 'd', source: MANY, destination: parseIp('10.244.2.1') };
    const { reachable } = travel(makeWorld(host), request);
    expect(reachable.there).toBe(true);
  });

  it('is not followed where nobody has read them', () => {
    const host = withRoute({ gateway: null, device: null });
    const { verdict } = probe(makeWorld(host), { netns: 'a', destination: MANY });
    expect(verdict).toMatchObject({
      kind: 'unknown',
      text: 'the next hops of route 10.99.0.9/32 are not read',
    });
  });

  it.each([
    { file: 'one-of-several', hops: [TO_C, TO_D] },
    { file: 'one-of-several-fails', hops: [TO_NOBODY, TO_D] },
  ])('reads so: $file', async ({ file, hops }) => {
    const journey = travel(makeWorld(byHops(hops)), { netns: 'node', destination: MANY });
    await expect(`${formatJourney(journey).join('\n')}\n`).toMatchFileSnapshot(
      `golden/${file}.txt`,
    );
  });
});
