import fc from 'fast-check';
import { IPv4CidrRange, IPv6CidrRange } from 'ip-num';
import { describe, expect, it } from 'vitest';
import { type Ip, familyOf, ipBits, ipFromBits } from '../../model/ip.ts';
import { type IpamConfig, parseConfig } from '../../plugin/cni/config.ts';
import type { AttachmentKey } from '../../plugin/cni/request.ts';
import { type AddressBook, allocate, fits } from '../../plugin/ipam/allocate.ts';
import { type RangeSet, capacityOf, rangeSetsOf } from '../../plugin/ipam/ranges.ts';
import { IN_MEMORY, openStore } from '../../plugin/store/open.ts';
import { rangeSets } from '../arbitraries/range-set.ts';
import { makeTestAttachment } from './attachment.ts';
import { refusal } from './refusal.ts';

/** What is given out, kept in the simplest way there is. */
class Ledger {
  readonly taken = new Set<Ip>();
  last: Ip | undefined;

  book(): AddressBook {
    const sorted = [...this.taken].toSorted((a, b) => (ipBits(a) < ipBits(b) ? -1 : 1));
    return {
      lastOf: () => this.last,
      takenBetween: (first, end) =>
        sorted.filter(
          (ip) =>
            familyOf(ip) === familyOf(first) &&
            ipBits(first) <= ipBits(ip) &&
            ipBits(ip) <= ipBits(end),
        ),
      isTaken: (ip) => this.taken.has(ip),
    };
  }

  take(ip: Ip): void {
    this.taken.add(ip);
    this.last = ip;
  }
}

/** The range sets of a configuration of addresses. */
function setsFrom(ipam: Readonly<Record<string, unknown>>): readonly RangeSet[] {
  return rangeSetsOf(parseConfig({ ipam: { type: 'cube-ipam', ...ipam } }).ipam as IpamConfig);
}

function isExcluded(set: RangeSet, ip: Ip): boolean {
  return set.some(({ excluded }) =>
    excluded.some((span) => span.first <= ipBits(ip) && ipBits(ip) <= span.last),
  );
}

/** Every address that a pod could get, in the order in which they are walked from the first. */
function walk(set: RangeSet): Ip[] {
  const gateways = new Set(set.map(({ gateway }) => gateway));
  return set.flatMap(({ family, first, last }) => {
    const ips: Ip[] = [];
    for (let bits = first; bits <= last; bits += 1n) ips.push(ipFromBits(family, bits));
    return ips.filter((ip) => !gateways.has(ip) && !isExcluded(set, ip));
  });
}

/** The next address as somebody would find it who tries one after the other, round to where he began. */
function nextByWalking(set: RangeSet, ledger: Ledger): Ip | undefined {
  const ips = walk(set);
  const at = ledger.last === undefined ? -1 : ips.indexOf(ledger.last);
  return [...ips.slice(at + 1), ...ips.slice(0, at + 1)].find((ip) => !ledger.taken.has(ip));
}

function next(set: RangeSet, book: AddressBook): Ip | undefined {
  try {
    return allocate([set], book)[0]?.ip;
  } catch (error) {
    expect(error).toMatchObject({ name: 'CniError', code: 102 });
    return undefined;
  }
}

/** Pods that come, and that go: `true` is one more, a number is which of those there are goes. */
function comings(): fc.Arbitrary<(true | number)[]> {
  return fc.array(fc.oneof({ weight: 2, arbitrary: fc.constant<true>(true) }, fc.nat(50)), {
    maxLength: 60,
  });
}

describe('allocation', () => {
  it('gives what a walk through all addresses gives, whatever comes and goes', () => {
    fc.assert(
      fc.property(rangeSets(), comings(), (set, steps) => {
        const ledger = new Ledger();
        for (const step of steps) {
          if (step === true) {
            const expected = nextByWalking(set, ledger);
            expect(next(set, ledger.book())).toBe(expected);
            if (expected !== undefined) ledger.take(expected);
          } else {
            const gone = [...ledger.taken][step % Math.max(1, ledger.taken.size)];
            if (gone !== undefined) ledger.taken.delete(gone);
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  it('gives every address once, none of them a gateway, and then none', () => {
    fc.assert(
      fc.property(rangeSets(), (set) => {
        const ledger = new Ledger();
        const given: Ip[] = [];
        for (let ip = next(set, ledger.book()); ip !== undefined; ip = next(set, ledger.book())) {
          given.push(ip);
          ledger.take(ip);
        }
        expect(given).toEqual(walk(set));
        expect(set.map(({ gateway }) => gateway).some((ip) => given.includes(ip))).toBe(false);
      }),
    );
  });

  it('gives an address that came back after all others', () => {
    fc.assert(
      fc.property(rangeSets(), fc.nat(), fc.nat(), (set, count, which) => {
        const ledger = new Ledger();
        const given: Ip[] = [];
        const total = walk(set).length;
        fc.pre(total > 0);
        const take = (): void => {
          const ip = next(set, ledger.book());
          if (ip === undefined) return;
          given.push(ip);
          ledger.take(ip);
        };
        for (let i = 0; i <= count % total; i += 1) take();
        const freed = given[which % given.length] as Ip;
        ledger.taken.delete(freed);
        while (ledger.taken.size < total) take();
        expect(given.at(-1)).toBe(freed);
      }),
    );
  });

  it('from the store gives what it gives from memory', () => {
    fc.assert(
      fc.property(rangeSets(), comings(), (set, steps) => {
        const store = openStore(IN_MEMORY, 'boot');
        const ledger = new Ledger();
        const owners = new Map<Ip, AttachmentKey>();
        for (const [i, step] of steps.entries()) {
          if (step === true) {
            const ip = next(set, ledger.book());
            expect(next(set, store.addressBook('net'))).toBe(ip);
            if (ip === undefined) continue;
            ledger.take(ip);
            const attachment = makeTestAttachment({ containerId: `c${i}`, addresses: [ip] });
            owners.set(ip, attachment.key);
            store.put(attachment, { pid: 1, startTime: '' }, []);
          } else {
            const gone = [...ledger.taken][step % Math.max(1, ledger.taken.size)];
            if (gone === undefined) continue;
            ledger.taken.delete(gone);
            store.remove(owners.get(gone) as AttachmentKey);
          }
        }
        store.close();
      }),
      { numRuns: 60 },
    );
  });

  it('of several sets gives one of each, and never the gateway of another set', () => {
    const sets = setsFrom({
      ranges: [
        [{ subnet: '10.0.0.0/24', rangeEnd: '10.0.0.2', gateway: '10.0.0.4' }],
        [{ subnet: '10.0.0.0/24', rangeStart: '10.0.0.3', gateway: '10.0.0.1' }],
        [{ subnet: 'fd00::/64' }],
      ],
    });
    const ledger = new Ledger();
    const none: AddressBook = {
      lastOf: () => undefined,
      takenBetween: () => [],
      isTaken: () => false,
    };
    expect(allocate(sets, none)).toEqual([
      { ip: '10.0.0.2', prefixLength: 24, gateway: '10.0.0.4' },
      { ip: '10.0.0.3', prefixLength: 24, gateway: '10.0.0.1' },
      { ip: 'fd00::2', prefixLength: 64, gateway: 'fd00::1' },
    ]);
    ledger.taken.add('10.0.0.3' as Ip);
    expect(allocate(sets, ledger.book())[1]?.ip).toBe('10.0.0.5');
    ledger.taken.add('10.0.0.2' as Ip);
    expect(refusal(() => allocate(sets, ledger.book()))).toBe(
      '102 no IP addresses available in range set 0: 10.0.0.1-10.0.0.2',
    );
  });

  it('reads no more of what is taken than it needs', () => {
    const [set] = setsFrom({ subnet: 'fd00::/64' });
    let read = 0;
    const book: AddressBook = {
      lastOf: () => 'fd00::100' as Ip,
      takenBetween: function* (first) {
        for (let bits = ipBits(first) + 1n; ; bits += 2n) {
          read += 1;
          yield ipFromBits(6, bits);
        }
      },
      isTaken: () => false,
    };
    expect(allocate([set as RangeSet], book)[0]?.ip).toBe('fd00::101');
    expect(read).toBe(1);
  });
});

/** Range sets of one subnet each. */
function setsOf(...subnets: readonly string[]): readonly RangeSet[] {
  const ranges = subnets.map((subnet) => [{ subnet }]);
  return setsFrom({ ranges });
}

describe('addresses of an attachment that was begun', () => {
  const none: AddressBook = {
    lastOf: () => undefined,
    takenBetween: () => [],
    isTaken: () => false,
  };

  it('fit the sets they came from, and no others', () => {
    const addresses = allocate(setsOf('10.0.0.0/24', 'fd00::/64'), none);
    expect(fits(setsOf('10.0.0.0/24', 'fd00::/64'), addresses)).toBe(true);
    expect(fits(setsOf('10.0.0.0/24'), addresses)).toBe(false);
    expect(fits(setsOf('fd00::/64', '10.0.0.0/24'), addresses)).toBe(false);
    expect(fits(setsOf('10.0.1.0/24', 'fd00::/64'), addresses)).toBe(false);
    expect(fits(setsOf('10.0.0.0/24', 'fd00::/64', '10.0.1.0/24'), addresses)).toBe(false);
    // The same addresses with another prefix length are others to the kernel.
    expect(fits(setsOf('10.0.0.0/16', 'fd00::/64'), addresses)).toBe(false);
    expect(fits(setsOf('10.0.0.0/24', 'fd00::/48'), addresses)).toBe(false);
  });
});

describe('the ranges of a subnet', () => {
  it('are those that ip-num computes', () => {
    const ipv4 = fc.tuple(fc.integer({ min: 0, max: 0xffffffff }), fc.integer({ min: 0, max: 30 }));
    fc.assert(
      fc.property(ipv4, ([bits, length]) => {
        const cidr = `${ipFromBits(4, BigInt(bits))}/${length}`;
        const network = IPv4CidrRange.fromCidr(cidr);
        const subnet = `${network.getFirst().toString()}/${length}`;
        const [range] = setsFrom({ subnet })[0] ?? [];
        expect(range).toMatchObject({
          subnet,
          first: network.getFirst().getValue() + 1n,
          last: network.getLast().getValue() - 1n,
          gateway: network.getFirst().nextIPNumber().toString(),
        });
      }),
    );
    const ipv6 = fc.tuple(
      fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }),
      fc.integer({ min: 0, max: 126 }),
    );
    fc.assert(
      fc.property(ipv6, ([bits, length]) => {
        const network = IPv6CidrRange.fromCidr(`${ipFromBits(6, bits)}/${length}`);
        const subnet = `${ipFromBits(6, network.getFirst().getValue())}/${length}`;
        const [range] = setsFrom({ subnet })[0] ?? [];
        expect(range).toMatchObject({
          subnet,
          first: network.getFirst().getValue() + 1n,
          last: network.getLast().getValue(),
          gateway: ipFromBits(6, network.getFirst().getValue() + 1n),
        });
      }),
    );
  });
});

describe('the capacity of a set', () => {
  it('is the number of addresses that somebody finds who walks through it', () => {
    fc.assert(
      fc.property(rangeSets(), (set) => {
        // A gateway counts where it lies, whichever range it belongs to.
        const own = set.map((range) => [range]);
        for (const each of own) expect(capacityOf(each)).toBe(BigInt(walk(each).length));
      }),
    );
    expect(capacityOf(setsFrom({ subnet: '10.0.0.0/24' })[0] as RangeSet)).toBe(253n);
  });
});
