import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Host, getNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import type { Op } from '../../model/op.ts';
import { makePolicyRule } from '../../model/policy-rule.ts';
import { parsePrefix, prefixContains, prefixLengthOf } from '../../model/prefix.ts';
import { type Route, makeRoute } from '../../model/route.ts';
import { hopsOf, travel } from '../../sim/journey.ts';
import { formatPassedOver, journeyJson, passedOver } from '../../sim/passed-over.ts';
import { makeWorld } from '../../sim/world.ts';
import {
  POLICY_RULE_BREAKAGES,
  ROUTED,
  ROUTED_DESTINATIONS,
  ROUTED_SENDERS,
  breakageLists,
  carriedOut,
} from './hosts.ts';
import { TWO_PODS, applyAll } from './pods.ts';

function linesOf(host: Host, netns: string, destination: string): readonly string[] {
  const journey = travel(makeWorld(host), { netns, destination: parseIp(destination) });
  return hopsOf(journey).flatMap((hop) =>
    passedOver(host, hop).map((over) => `${hop.netns}: ${formatPassedOver(over)}`),
  );
}

describe('what a lookup passed over', () => {
  it('is a route with a shorter prefix, there and back', () => {
    expect(linesOf(TWO_PODS, 'a', '10.244.1.3')).toEqual([
      'a: default via 10.244.1.1 dev eth0: its prefix is shorter',
      'b: 10.244.1.0/24 dev eth0: table main is asked later',
      'b: default via 10.244.1.1 dev eth0: table main is asked later',
      'b: default via 10.244.1.1 dev eth0: its prefix is shorter',
      'a: 10.244.1.0/24 dev eth0: table main is asked later',
      'a: default via 10.244.1.1 dev eth0: table main is asked later',
    ]);
  });

  it('is a route with a higher metric, and a rule that does not fit', () => {
    const rule = makePolicyRule({ family: 4, priority: 10, source: parsePrefix('10.9.0.0/16') });
    const route = makeRoute({
      destination: parsePrefix('10.244.1.0/24'),
      device: 'eth0' as Ifname,
      metric: 7,
    });
    const host = applyAll(TWO_PODS, [
      { op: 'route.add', netns: 'a', route },
      { op: 'rule.add', netns: 'a', rule },
    ]);
    expect(linesOf(host, 'a', '10.244.1.3').slice(0, 3)).toEqual([
      'a: rule pref 10 from 10.9.0.0/16 table 254: it does not fit',
      'a: 10.244.1.0/24 dev eth0: its metric is higher',
      'a: default via 10.244.1.1 dev eth0: its prefix is shorter',
    ]);
  });

  it('is a route that ends packets, where there is no way on', () => {
    const plain = makeRoute({
      destination: parsePrefix('10.244.1.3/32'),
      device: 'lo' as Ifname,
    });
    const end: Route = { ...plain, type: 'unreachable', device: null };
    const a = getNetns(TWO_PODS, 'a');
    // Somebody else makes such routes.
    const host = { netns: { ...TWO_PODS.netns, a: { ...a, routes: [...a.routes, end] } } };
    expect(linesOf(host, 'a', '10.244.1.3')).toEqual([
      'a: unreachable 10.244.1.3/32: it is unreachable',
      'a: 10.244.1.0/24 dev eth0: its prefix is shorter',
      'a: default via 10.244.1.1 dev eth0: its prefix is shorter',
    ]);
  });

  it('is every other route to the destination in the tables that rules lead to, none of them better than the winner', () => {
    const policies = fc.constantFrom<readonly Op[]>([], ...POLICY_RULE_BREAKAGES);
    fc.assert(
      fc.property(
        breakageLists(),
        policies,
        fc.constantFrom(...ROUTED_SENDERS),
        fc.constantFrom(...ROUTED_DESTINATIONS),
        (ops, rules, netns, destination) => {
          const { host } = carriedOut(ROUTED, [...rules, ...ops]);
          for (const hop of hopsOf(travel(makeWorld(host), { netns, destination }))) {
            const { lookedUp } = hop;
            const routes = passedOver(host, hop).flatMap(({ what }) =>
              'route' in what ? [what.route] : [],
            );
            if (lookedUp?.kind !== 'route') {
              expect(routes).toEqual([]);
              continue;
            }
            const { found, destination: ip } = lookedUp;
            const candidates = (host.netns[hop.netns]?.routes ?? []).filter((route) =>
              prefixContains(route.destination, ip),
            );
            expect(candidates).toEqual(expect.arrayContaining(routes));
            expect(new Set(routes).size).toBe(routes.length);
            if (found === null) continue;
            expect(routes).not.toContain(found);
            // What is in its own table, and is not on another link that it cannot use, is no better.
            const rivals = routes.filter(
              ({ table, device }) => table === found.table && device === found.device,
            );
            for (const rival of rivals)
              expect(prefixLengthOf(rival.destination)).toBeLessThanOrEqual(
                prefixLengthOf(found.destination),
              );
          }
        },
      ),
    );
  });

  it('is in what machines read', () => {
    const request = { netns: 'a', destination: parseIp('10.244.1.3') };
    const json = JSON.stringify(journeyJson(TWO_PODS, travel(makeWorld(TWO_PODS), request)));
    expect(json).toContain('"why":"its prefix is shorter"');
  });
});
