import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeXtMatch, decodeXtTarget } from '../../backends/linux/xt.ts';

const MATCHES = ['conntrack', 'addrtype', 'mark', 'multiport', 'statistic', 'icmp', 'tcp', 'udp'];
const TARGETS = ['DNAT', 'SNAT', 'REDIRECT', 'REJECT', 'MARK', 'CT'];

describe('structures of iptables', () => {
  it('of any bytes and revision are understood or not, and no more', () => {
    const bytes = fc.uint8Array({ maxLength: 200 });
    fc.assert(
      fc.property(bytes, fc.nat(4), fc.boolean(), (info, revision, isIpv6) => {
        for (const name of [...MATCHES, 'constructor'])
          expect([undefined, name]).toContain(decodeXtMatch(name, info, revision, isIpv6)?.match);
        for (const name of TARGETS) decodeXtTarget(name, info, revision, isIpv6);
      }),
    );
  });

  it('that are shorter than they have to be are not understood', () => {
    for (const name of MATCHES)
      expect(decodeXtMatch(name, new Uint8Array(3), 1, false)).toBeUndefined();
    expect(decodeXtTarget('DNAT', new Uint8Array(39), 2, false)).toBeUndefined();
  });
});
