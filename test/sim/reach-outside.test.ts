import { describe, expect, it } from 'vitest';
import { HOST_NETNS, type Host, withLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { type Family, parseIp } from '../../model/ip.ts';
import type { DeviceLink } from '../../model/link.ts';
import { parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import { OUTSIDE, OUTSIDE_NETNS, withOutside } from '../../sim/outside.ts';
import { probe } from '../../sim/probe.ts';
import { endpointsOf, pairsOf, reachOf } from '../../sim/reach.ts';
import { type Trace, formatVerdict } from '../../sim/trace.ts';
import { makeWorld } from '../../sim/world.ts';
import { afterOps } from '../plugin/machine.ts';
import { ROUTED } from './hosts.ts';
import { addressOps, bridgeOps, routeOps } from './pods.ts';
import { nodeWith } from './published-host.ts';

const FAMILIES = [4, 6] as const;
const UP = 'uplink' as Ifname;
const OTHER = 'other' as Ifname;

/** What becomes of a packet of the outside for an address that it may ask. */
function askedFrom(host: Host, family: Family, at = 0): Trace | undefined {
  const around = withOutside(host, HOST_NETNS, family);
  const destination = around?.ips[at];
  if (!around || destination === undefined) return undefined;
  const request = { netns: OUTSIDE_NETNS, source: OUTSIDE[family].ip, destination };
  return probe(makeWorld(around.host), request);
}

function set(attribute: (Op & { readonly op: 'link.set' })['set'], ifname = UP): Op {
  return { op: 'link.set', netns: HOST_NETNS, ifname, set: attribute };
}

/** The node with its card as a port of a bridge, which has the addresses and is the way out. */
function bridged(): Host {
  const bridge = 'br0';
  return afterOps(nodeWith(0).backend.host(), [
    ...bridgeOps(HOST_NETNS, bridge, '02:00:00:00:07:01'),
    set({ master: bridge as Ifname }),
    ...addressOps(HOST_NETNS, bridge, '192.0.3.5/24', '2001:db8:8::5/64'),
    { op: 'route.del', netns: HOST_NETNS, route: routeBy('0.0.0.0/0', '192.168.1.1') },
    { op: 'route.del', netns: HOST_NETNS, route: routeBy('::/0', 'fe80::1') },
    ...routeOps(HOST_NETNS, bridge, '0.0.0.0/0', '192.0.3.1'),
    ...routeOps(HOST_NETNS, bridge, '::/0', '2001:db8:8::1'),
  ]);
}

function routeBy(
  destination: string,
  gateway: string,
): (Op & { readonly op: 'route.add' })['route'] {
  const [op] = routeOps(HOST_NETNS, UP, destination, gateway);
  if (op?.op !== 'route.add') throw new Error('it is no route');
  return op.route;
}

describe('somebody outside who asks', () => {
  it.each(FAMILIES)('comes in by the card, and has its answer: IPv%i', (family) => {
    const host = nodeWith(0).backend.host();
    expect(askedFrom(host, family)?.verdict.kind).toBe('delivered');
    const known = afterOps(host, [
      {
        op: 'neighbour.add',
        netns: HOST_NETNS,
        ifname: UP,
        neighbour: {
          ip: parseIp(family === 4 ? '192.168.1.1' : 'fe80::1'),
          mac: parseMac('02:00:00:00:09:09'),
        },
      },
    ]);
    // It is who was set for good.
    expect(askedFrom(known, family)?.verdict.kind).toBe('delivered');
  });

  it.each(FAMILIES)('comes in by the port of a bridge: IPv%i', (family) => {
    const trace = askedFrom(bridged(), family);
    expect(trace && formatVerdict(trace.verdict)).toBe('delivered: the sender has the reply');
    expect(trace?.hops.some(({ link, netns }) => netns === HOST_NETNS && link === 'br0')).toBe(
      true,
    );
  });

  it('is not there where no route, or no link, leads to it', () => {
    const host = nodeWith(0).backend.host();
    const card = host.netns[HOST_NETNS]?.links[UP] as DeviceLink;
    const without: readonly Host[] = [
      ROUTED,
      afterOps(host, [set({ up: false })]),
      withLink(host, HOST_NETNS, { ...card, carrier: false }),
      // Behind which of both is not known.
      afterOps(withLink(bridged(), HOST_NETNS, { ...card, ifname: OTHER, addresses: [] }), [
        set({ master: 'br0' as Ifname }, OTHER),
      ]),
    ];
    for (const each of without) expect(askedFrom(each, 4)).toBeUndefined();
  });

  it.each(FAMILIES)('changes nothing for those who are there: IPv%i', (family) => {
    const host = nodeWith(2).backend.host();
    const around = withOutside(host, HOST_NETNS, family);
    const pairs = pairsOf(endpointsOf(host)).filter(({ to }) => to.netns !== null);
    const reached = (each: Host): string[] => pairs.map((pair) => reachOf(each, pair));
    expect(around && reached(around.host)).toEqual(reached(host));
  });
});
