import { describe, expect, it } from 'vitest';
import { HOST_NETNS } from '../../model/host.ts';
import { parseIp } from '../../model/ip.ts';
import { formatCause, within } from '../../sim/cause.ts';
import { formatJourney, travel } from '../../sim/journey.ts';
import { makeWorld } from '../../sim/world.ts';
import { BROKEN_HOSTS } from '../broken/all.ts';
import { brokenState, brokenWorld, requestOf } from '../broken/broken-host.ts';
import { called } from '../differential/place.ts';
import { HAIRPIN_CASES } from './hairpin.ts';
import { ROUTED } from './hosts.ts';
import { applyAll } from './pods.ts';
import { UPLINK, nodeWith } from './published-host.ts';
import { SERVICE_PORT } from './rulesets.ts';

describe('a journey', () => {
  it('is the hops there and those of the answer', () => {
    const journey = travel(makeWorld(ROUTED), { netns: 'a', destination: parseIp('10.244.2.4') });
    expect(journey).toMatchObject({ reachable: { there: true, back: true }, cause: null });
    expect(journey.forward.at(-1)).toMatchObject({ netns: 'c', stage: 'deliver' });
    expect(journey.return.at(0)).toMatchObject({ netns: 'c', stage: 'route' });
    expect(journey.return.at(-1)).toMatchObject({ netns: 'a', stage: 'deliver' });
  });

  it('that leaves the host says from whom and by what, and takes no time', () => {
    const host = nodeWith(1).backend.host();
    const [pod] = Object.keys(host.netns).filter(
      (name) => name !== HOST_NETNS && host.netns[name]?.links['eth0'] !== undefined,
    );
    const journey = travel(makeWorld(host), {
      netns: pod ?? '',
      destination: parseIp('192.0.2.77'),
    });
    const leaves = { source: UPLINK[0], destination: '192.0.2.77' };
    expect(journey).toMatchObject({ verdict: { kind: 'unknown', link: 'uplink', leaves } });
    expect(formatJourney(journey).at(-1)).toBe(
      `? it leaves this host from ${UPLINK[0]} to 192.0.2.77, by host uplink; what becomes of it there is not known`,
    );
    expect(journey.forward.at(-1)).toMatchObject({
      decision: 'not followed: it leaves this host by uplink, if 192.168.1.1 is there',
    });
    expect(journey.forward.some(({ afterMs }) => afterMs !== undefined)).toBe(false);
  });

  const traced = BROKEN_HOSTS.flatMap(({ trace, ...broken }) =>
    trace ? [{ ...broken, trace }] : [],
  );

  it.each(traced)('names whoever is to blame where $name', (broken) => {
    const { trace, guilty, legacyTables } = broken;
    const journey = travel(brokenWorld(broken), requestOf(trace));
    const { cause, reachable, unread } = journey;
    if (legacyTables) {
      expect(unread).toMatchObject([{ netns: guilty[0], object: guilty[1] }]);
      expect({ cause, ...reachable }).toEqual({ cause: null, there: null, back: null });
      return;
    }
    expect(cause, cause ? formatCause(cause) : 'nobody').toMatchObject({
      netns: guilty[0],
      object: guilty[1],
    });
    const { traceMends, traceSays = () => '' } = broken;
    expect(formatJourney(journey).join('\n')).toContain(traceSays((netns) => netns));
    expect(journey.untranslated === null).toBe(broken.traceSays === undefined);
    if (traceMends)
      expect(cause?.mend).toEqual(traceMends.map((command) => within(guilty[0], command)));
    // Of a connection that is half open the answer comes, and nothing after it arrives.
    const isHalfOpen = journey.acknowledgement.length > 0;
    expect(reachable.back).toBe(isHalfOpen);
    expect(reachable.there).toBe(
      !isHalfOpen && (broken.name.includes('answers') || broken.name.includes('way back')),
    );
  });

  const [bridged, unbridged] = ['1', '0'].map((value) =>
    HAIRPIN_CASES.filter(({ name }) => name.endsWith(`bridge-nf-call-iptables ${value}`)),
  );
  const twins = (unbridged ?? []).flatMap((without, at) => {
    const twin = bridged?.[at];
    return twin && !without.reaches ? [{ ...without, isMended: twin.reaches }] : [];
  });

  it.each(twins)(
    'names the setting of a bridge only where it mends: $name',
    ({ ops, isMended }) => {
      const to = { protocol: 'udp', port: SERVICE_PORT } as const;
      const request = { netns: 'a', destination: parseIp('10.96.0.1'), to };
      const { cause } = travel(makeWorld(applyAll(ROUTED, ops)), request);
      expect(cause?.object === 'sysctl net.bridge.bridge-nf-call-iptables').toBe(isMended);
    },
  );

  it('names an owner near by where another node has the same addresses', () => {
    const [broken] = BROKEN_HOSTS.filter(
      ({ name }) => name === 'the port of the other end is down',
    );
    if (!broken) throw new Error('there is no such broken host');
    const { netns } = brokenState(broken);
    const elsewhere = called(ROUTED, (name) => `0-${name}`);
    const host = { netns: { ...elsewhere.netns, ...netns } };
    const request = { netns: 'a', destination: parseIp('10.244.1.3') };
    const { cause } = travel(makeWorld(host), request);
    expect(cause && formatCause(cause)).toBe('netns node: link v-b is down');
  });
});
