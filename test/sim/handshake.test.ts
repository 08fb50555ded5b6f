import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseIp } from '../../model/ip.ts';
import { formatJourney, hopsOf, travel } from '../../sim/journey.ts';
import { makeWorld } from '../../sim/world.ts';
import { HANDSHAKES, type Opening, handshakeHost } from './handshakes.ts';
import { ROUTED, ROUTED_DESTINATIONS, ROUTED_SENDERS, breakageLists, carriedOut } from './hosts.ts';
import { LISTEN_PORT } from './rulesets.ts';

const TO_C = {
  netns: 'a',
  destination: parseIp('10.244.2.4'),
  to: { protocol: 'tcp', port: LISTEN_PORT },
} as const;

const REACHABLE: Readonly<Record<Opening, { readonly there: boolean; readonly back: boolean }>> = {
  open: { there: true, back: true },
  'half open': { there: false, back: true },
  none: { there: false, back: false },
};

describe('a connection over TCP', () => {
  it.each(HANDSHAKES)('$name: $opening', (handshake) => {
    const journey = travel(makeWorld(handshakeHost(handshake)), TO_C);
    const { opening, name } = handshake;
    // A question that arrives has done so, whatever becomes of the answer.
    const there = name === 'where answers are dropped' || REACHABLE[opening].there;
    expect(journey.reachable).toEqual({ ...REACHABLE[opening], there });
    expect(journey.acknowledgement.length > 0).toBe(opening !== 'none');
  });

  it('that is half open says so, and by which rule', () => {
    const [half] = HANDSHAKES.filter(({ opening }) => opening === 'half open');
    if (!half) throw new Error('there is none');
    const journey = travel(makeWorld(handshakeHost(half)), TO_C);
    const text = formatJourney(journey).join('\n');
    expect(text).toContain('✗ it arrives, and the answer too, and nothing after that arrives');
    expect(text).toContain(
      'netns node: chain ip handshake forward drops it by its rule 1: ct state invalid drop',
    );
  });

  it('is open once three segments have gone, each as it is due, and nothing else has', () => {
    fc.assert(
      fc.property(
        breakageLists(),
        fc.constantFrom(...ROUTED_SENDERS),
        fc.constantFrom(...ROUTED_DESTINATIONS),
        (ops, netns, destination) => {
          const { host } = carriedOut(ROUTED, ops);
          const journey = travel(makeWorld(host), { ...TO_C, netns, destination });
          const kinds = hopsOf(journey).flatMap(({ data }) => {
            const packet = data.kind === 'frame' ? data.packet : data;
            return packet.kind === 'ip' && packet.message.kind === 'tcp'
              ? packet.message.flags
              : [];
          });
          // Copies that a bridge floods may still be on their way when others have arrived.
          const inTurn = [...new Set(kinds)];
          const all = ['syn', 'syn ack', 'ack'];
          expect(inTurn).toEqual(all.slice(0, inTurn.length));
          if (journey.verdict.kind === 'delivered') expect(inTurn).toEqual(all);
        },
      ),
    );
  });
});
