import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { Ifname } from '../../model/ifname.ts';
import { type Ip, ipFromBits, parseIp } from '../../model/ip.ts';
import { parsePrefix, prefixIp } from '../../model/prefix.ts';
import { localType, lookup } from '../../model/route-lookup.ts';
import { makeRoute } from '../../model/route.ts';
import { coveringRoutes } from '../../sim/covering-routes.ts';
import { hosts } from '../arbitraries/host.ts';
import { ipValues } from '../arbitraries/ip.ts';

const FAR = ['10.0.0.2', '10.0.0.255', '10.1.2.3', '0.0.0.0', 'fd00::2', 'fe80::1', '::'];

function ips(): fc.Arbitrary<Ip> {
  const any = fc
    .oneof(ipValues(4), ipValues(6))
    .map(({ family, bits }) => ipFromBits(family, bits));
  return fc.oneof(any, fc.constantFrom(...FAR.map(parseIp)));
}

/** Fewer are looked through as they are. */
const MANY = Array.from({ length: 12 }, (_, index) =>
  makeRoute({ destination: parsePrefix(`10.${index}.0.0/16`), device: 'eth0' as Ifname }),
);

it('finds the same route among those that cover an address as among all', () => {
  let narrowed = 0;
  fc.assert(
    fc.property(hosts(40), ips(), ips(), (host, other, source) => {
      const routes = Object.values(host.netns).flatMap((netns) => netns.routes);
      const all = Object.values(host.netns).flatMap((netns) => [
        netns,
        { ...netns, routes: [...routes, ...MANY] },
      ]);
      for (const netns of all) {
        const known = netns.routes.map(({ destination }) => prefixIp(destination));
        for (const ip of [other, ...known]) {
          const few = coveringRoutes(netns, ip);
          if (few.routes.length < netns.routes.length) narrowed += 1;
          expect(lookup(few, ip, { source })).toEqual(lookup(netns, ip, { source }));
          expect(localType(few, ip)).toBe(localType(netns, ip));
          expect(few.routes.every((route) => netns.routes.includes(route))).toBe(true);
        }
      }
    }),
    { numRuns: 300 },
  );
  expect(narrowed).toBeGreaterThan(0);
});
