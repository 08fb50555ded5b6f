/** A service whose endpoint the kernel draws: what is predicted agrees with whatever it drew. */
import { execFileSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseIp } from '../../model/ip.ts';
import { traceLive } from '../../plugin/process/live-trace.ts';
import { called } from '../differential/place.ts';
import { readRules, withRules } from '../packets/compare.ts';
import { type RoutedHost, buildHost } from '../packets/routed-kernel.ts';
import { requirement } from '../requirements.ts';
import { SERVICES } from '../sim/rulesets.ts';

const NFT = `table ip lb {
  chain pre {
    type nat hook prerouting priority -100
    ip daddr ${SERVICES[0]} dnat to numgen random mod 2 map { 0 : 10.244.2.4, 1 : 10.244.3.2 }
  }
}
`;

const IPTABLES = `*nat
-A PREROUTING -d ${SERVICES[0]} -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.244.2.4
-A PREROUTING -d ${SERVICES[0]} -j DNAT --to-destination 10.244.3.2
COMMIT
`;

/** That one of two is drawn every time happens once in eight million runs. */
const MOST_PROBES = 24;

describe.skipIf(requirement('root', 'nftables', 'iptables-nft', 'tracefs'))(
  'a live probe of a service with two endpoints',
  () => {
    let host: RoutedHost | undefined;

    beforeAll(() => {
      host = buildHost();
    });

    afterAll(() => host?.tearDown());

    it.each([
      { by: 'numgen', input: NFT, command: ['nft', '-f', '-'] },
      { by: 'statistic', input: IPTABLES, command: ['iptables-nft-restore'] },
    ])(
      'agrees with what is predicted, by $by, whichever is drawn',
      async ({ input, command }) => {
        if (!host) throw new Error('there is no host');
        const { real } = host.places;
        const node = real('node');
        execFileSync('ip', ['netns', 'exec', node, 'nft', 'flush', 'ruleset']);
        execFileSync('ip', ['netns', 'exec', node, ...command], { input });
        const whole = { host: called(withRules(readRules(node)), real), legacyTables: {} };
        const asked = { netns: real('a'), destination: parseIp(SERVICES[0] ?? '') };
        const drawn = new Set<boolean>();
        for (let count = 0; count < MOST_PROBES && drawn.size < 2; count += 1) {
          const { parting, isRedrawn, observed } = await traceLive(whole, asked);
          expect(parting).toBeNull();
          expect(observed.outcome.kind).toBe('answered');
          drawn.add(isRedrawn);
          // A connection that is known is not drawn again.
          execFileSync('ip', ['netns', 'exec', node, 'conntrack', '-F'], { stdio: 'ignore' });
        }
        expect(drawn.size).toBe(2);
      },
      60_000,
    );
  },
);
