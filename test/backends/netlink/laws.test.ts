import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeAddress, encodeAddressAdd } from '../../../backends/linux/address-message.ts';
import { encodeAnnouncement } from '../../../backends/linux/announce-message.ts';
import { makeReader } from '../../../backends/linux/attribute.ts';
import { encodeEcho, internetChecksum, isEchoReply } from '../../../backends/linux/echo-message.ts';
import { decodeLink, encodeBridgeAdd } from '../../../backends/linux/link-message.ts';
import { type Message, eachMessage } from '../../../backends/linux/message.ts';
import { decodeNeighbour, encodeNeighbourAdd } from '../../../backends/linux/neighbour-message.ts';
import { encodeBatch } from '../../../backends/linux/nftables-batch.ts';
import {
  decodeChain,
  decodeElements,
  decodeRule,
  decodeSet,
} from '../../../backends/linux/nftables-message.ts';
import { decodeRoute, encodeRouteAdd } from '../../../backends/linux/route-message.ts';
import { type Address, makeAddress } from '../../../model/address.ts';
import { parseIfname } from '../../../model/ifname.ts';
import { type Family, type Ip, ipBytes, ipFromBytes, parseIp } from '../../../model/ip.ts';
import { type Mac, macBytes, macFromBytes, parseMac } from '../../../model/mac.ts';
import {
  type Field,
  type LookupField,
  type NftCommand,
  type NftFamily,
  type Rule,
  type SetKey,
  type Statement,
  type Target,
  type Verdict,
  keyTypeOf,
  targetTypeOf,
} from '../../../model/nftables.ts';
import { type Prefix, prefixOf } from '../../../model/prefix.ts';
import { type Route, makeRoute } from '../../../model/route.ts';

function messagesIn(bytes: Uint8Array): Message[] {
  const messages: Message[] = [];
  eachMessage(makeReader(bytes), bytes.length, (message) => messages.push(message));
  return messages;
}

function only(bytes: Uint8Array): Message {
  const [message] = messagesIn(bytes);
  if (!message) throw new Error('no message');
  return message;
}

/** The message of the second command, behind the table's own. */
function inBatch(
  family: NftFamily,
  command: Partial<NftCommand> & Record<string, unknown>,
): Message {
  const ref = { family, table: 't' };
  const message = messagesIn(encodeBatch([{ ...ref, ...command } as NftCommand]))[1];
  if (!message) throw new Error('no message');
  return message;
}

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const ipOf = (family: Family): fc.Arbitrary<Ip> => bytes(family === 4 ? 4 : 16).map(ipFromBytes);
const lengthOf = (family: Family) => fc.nat({ max: family === 4 ? 32 : 128 });
const families = fc.constantFrom<Family>(4, 6);
const macs: fc.Arbitrary<Mac> = bytes(6).map(macFromBytes);
const ifindexes = fc.integer({ min: 1, max: 0x7fffffff });
const names = fc.stringMatching(/^[a-z][a-z0-9_]{0,14}$/);
const comments = fc.stringMatching(/^[a-zA-Z0-9 :/_.äß-]{0,60}$/);

const addresses: fc.Arbitrary<Address> = families.chain((family) =>
  fc
    .record({
      ip: ipOf(family),
      prefixLength: lengthOf(family),
      scope: fc.constantFrom('global', 'site', 'link', 'host'),
      noPrefixRoute: fc.boolean(),
      peer: fc.option(ipOf(family)),
    })
    .map((choice) =>
      makeAddress({ ...choice, peer: choice.peer === choice.ip ? null : choice.peer }),
    ),
);

const routes: fc.Arbitrary<Omit<Route, 'device'>> = families.chain((family) =>
  fc
    .record({
      ip: ipOf(family),
      length: lengthOf(family),
      gateway: fc.option(fc.oneof(ipOf(family), ipOf(6))),
      source: fc.option(ipOf(family)),
      metric: fc.nat({ max: 0xffffffff }),
      protocol: fc.nat({ max: 255 }),
      onlink: fc.boolean(),
      table: fc.oneof(fc.constantFrom(254, 255), fc.integer({ min: 256, max: 0xffffffff })),
      metrics: fc.record(
        { mtuBytes: fc.nat(0xffffffff), advmssBytes: fc.nat(0xffffffff) },
        { requiredKeys: [] },
      ),
      type: fc.constantFrom(
        'unicast',
        'local',
        'broadcast',
        'blackhole',
        'unreachable',
        'prohibit',
        'throw',
      ),
    })
    .map(({ ip, length, table, type, metrics, ...choice }) => {
      const made = makeRoute({
        destination: prefixOf(ip, length),
        device: parseIfname('eth0'),
        ...choice,
        ...metrics,
      });
      const { device: _device, ...rest } = { ...made, table, type };
      return rest;
    }),
);

const verdicts: fc.Arbitrary<Verdict> = fc.oneof(
  fc.constantFrom<Verdict>(
    { verdict: 'accept' },
    { verdict: 'drop' },
    { verdict: 'return' },
    { verdict: 'continue' },
  ),
  fc.record({ verdict: fc.constantFrom('jump', 'goto'), chain: names }),
);

/** What rules may look at beside the fields of one IP family, for tables of a family. */
type HeaderField = Exclude<Field, 'iifname' | 'oifname' | 'meta l4proto' | 'th dport'>;

const fieldsBeside: Readonly<Record<NftFamily, readonly HeaderField[]>> = {
  ip: [],
  ip6: [],
  inet: [],
  bridge: ['ether saddr', 'arp saddr ether', 'arp saddr ip'],
};

/** Some bits of a mark, at least one. */
const bits = fc.integer({ min: 1, max: 0xffffffff });

const statements = (table: NftFamily, family: Family): fc.Arbitrary<Statement> => {
  const addressFields =
    family === 4 ? (['ip saddr', 'ip daddr'] as const) : (['ip6 saddr', 'ip6 daddr'] as const);
  const field = fc.constantFrom(...addressFields);
  const headerField = fc.constantFrom(...addressFields, ...fieldsBeside[table]);
  const lookupField = fc.oneof(
    headerField,
    headerField.map((each): LookupField => `iifname . ${each}`),
    fc.constantFrom('iifname' as const, 'oifname' as const, 'iifname . oifname' as const),
  );
  // A whole address is written without its length.
  const prefix: fc.Arbitrary<Prefix> = fc
    .tuple(ipOf(family), fc.nat({ max: family === 4 ? 31 : 127 }))
    .map(([ip, length]) => prefixOf(ip, length));
  return fc.oneof(
    fc.record({
      kind: fc.constant('match'),
      field,
      negate: fc.boolean(),
      value: fc.oneof(ipOf(family), prefix),
    }),
    fc.record({
      kind: fc.constant('match'),
      field: fc.constant('iifname'),
      negate: fc.boolean(),
      value: names.map((name) => parseIfname(name)),
    }),
    fc.record({
      kind: fc.constant('lookup'),
      field: lookupField,
      negate: fc.boolean(),
      set: names,
    }),
    fc.record({ kind: fc.constant('vmap'), field: lookupField, map: names }),
    fc.constant<Statement>({ kind: 'masquerade' }),
    fc.constant<Statement>({ kind: 'local' }),
    fc.record({ kind: fc.constant('mark'), bits, on: fc.boolean() }),
    fc.record({ kind: fc.constant('marked'), bits }),
    fc.record({
      kind: fc.constantFrom('dnat' as const),
      family: fc.constant(family),
      field: fc.constantFrom<LookupField[]>(
        'meta l4proto . th dport',
        family === 4 ? 'ip daddr . meta l4proto . th dport' : 'ip6 daddr . meta l4proto . th dport',
      ),
      map: names,
    }),
    fc.record({
      kind: fc.constant('vmap'),
      field: fc.constant<LookupField>('meta l4proto . th dport'),
      map: names,
    }),
    verdicts.map((verdict): Statement => ({ kind: 'verdict', ...verdict })),
  );
};

const rules: fc.Arbitrary<{ family: NftFamily; rule: Rule }> = fc
  .tuple(families, fc.constantFrom('own', 'inet', 'bridge'))
  .chain(([family, table]) => {
    const tableFamily = table === 'own' ? (family === 4 ? 'ip' : 'ip6') : table;
    return fc.record({
      family: fc.constant<NftFamily>(tableFamily),
      rule: fc.record({
        statements: fc.array(statements(tableFamily, family), { maxLength: 5 }),
        comment: comments,
      }),
    });
  });

const linkNames = names.map((name) => parseIfname(name));
const transports = fc.constantFrom('tcp' as const, 'udp' as const, 'sctp' as const);
const ports = fc.nat({ max: 65_535 });
const keys: fc.Arbitrary<SetKey> = fc.oneof(
  families.chain(ipOf),
  macs,
  linkNames,
  fc
    .tuple(linkNames, fc.oneof(families.chain(ipOf), macs, linkNames))
    .map(([name, second]): SetKey => `${name} . ${second}`),
  fc.tuple(transports, ports).map(([name, port]): SetKey => `${name} . ${port}`),
  fc
    .tuple(families.chain(ipOf), transports, ports)
    .map(([ip, name, port]): SetKey => `${ip} . ${name} . ${port}`),
);

const targets = fc
  .tuple(families.chain(ipOf), ports)
  .map(([ip, port]): Target => `${ip} . ${port}`);

test('an address that is sent reads as itself', () => {
  fc.assert(
    fc.property(ifindexes, addresses, (ifindex, address) => {
      expect(decodeAddress(only(encodeAddressAdd(ifindex, address)))).toEqual({ ifindex, address });
    }),
  );
});

test('a route that is sent reads as itself', () => {
  fc.assert(
    fc.property(ifindexes, routes, (ifindex, route) => {
      expect(decodeRoute(only(encodeRouteAdd({ ...route, device: null }, ifindex)))).toEqual({
        ifindex,
        route,
      });
    }),
  );
});

test('a neighbour that is sent reads as itself', () => {
  fc.assert(
    fc.property(ifindexes, families.chain(ipOf), macs, (ifindex, ip, mac) => {
      expect(decodeNeighbour(only(encodeNeighbourAdd(ifindex, { ip, mac })))).toEqual({
        ifindex,
        neighbour: { ip, mac },
      });
    }),
  );
});

test('a bridge that is sent reads as itself', () => {
  fc.assert(
    fc.property(names, macs, fc.nat({ max: 65535 }), fc.boolean(), (name, mac, mtuBytes, up) => {
      const ifname = parseIfname(name);
      const link = decodeLink(only(encodeBridgeAdd({ ifname, mac, mtuBytes, up })));
      expect(link).toMatchObject({ ifname, mac, mtuBytes, flags: up ? 1 : 0, kind: 'bridge' });
    }),
  );
});

test('a rule that is sent reads as itself', () => {
  fc.assert(
    fc.property(rules, names, ({ family, rule }, chain) => {
      expect(decodeRule(inBatch(family, { do: 'add rule', chain, rule }))).toEqual({
        table: 't',
        chain,
        rule,
      });
    }),
  );
});

test('a chain that is sent reads as itself', () => {
  const hooks = fc.record({
    type: fc.constantFrom('filter', 'nat', 'route'),
    hook: fc.constantFrom('prerouting', 'input', 'forward', 'output', 'postrouting'),
    priority: fc.integer({ min: -1000, max: 1000 }),
    policy: fc.constantFrom('accept', 'drop'),
  });
  fc.assert(
    fc.property(names, fc.option(hooks), (name, hook) => {
      expect(decodeChain(inBatch('inet', { do: 'add chain', chain: name, hook }))).toEqual({
        table: 't',
        chain: { name, hook },
      });
    }),
  );
});

test('a set that is sent reads as itself', () => {
  fc.assert(
    fc.property(
      names,
      keys.map(keyTypeOf),
      fc.constantFrom('nothing', 'verdict', 'ipv4_addr . inet_service', 'ipv6_addr . inet_service'),
      (name, keyType, holds) => {
        expect(decodeSet(inBatch('inet', { do: 'add set', set: name, keyType, holds }))).toEqual({
          table: 't',
          set: { name, keyType, holds },
        });
      },
    ),
  );
});

test('an element that is sent reads as itself', () => {
  fc.assert(
    fc.property(names, keys, fc.option(verdicts), comments, (set, key, verdict, comment) => {
      const element = { key, verdict, comment };
      const message = inBatch('inet', { do: 'add element', set, element });
      const shape = { keyType: keyTypeOf(key), holds: verdict ? 'verdict' : 'nothing' } as const;
      expect(decodeElements(message, shape)).toEqual({ set, elements: [element] });
    }),
  );
  fc.assert(
    fc.property(names, keys, targets, comments, (set, key, target, comment) => {
      const element = { key, verdict: null, target, comment };
      const message = inBatch('inet', { do: 'add element', set, element });
      const shape = { keyType: keyTypeOf(key), holds: targetTypeOf(target) };
      expect(decodeElements(message, shape)).toEqual({ set, elements: [element] });
    }),
  );
});

test('a statement that is not understood is never written', () => {
  const rule: Rule = { statements: [{ kind: 'opaque', expression: 'counter' }], comment: '' };
  expect(() => inBatch('inet', { do: 'add rule', chain: 'c', rule })).toThrow(
    '"counter" can be read but not written',
  );
});

test('a header that packets of the family lack is never read', () => {
  for (const field of ['ether saddr', 'iifname . arp saddr ip'] as const) {
    const rule: Rule = { statements: [{ kind: 'vmap', field, map: 'm' }], comment: '' };
    expect(() => inBatch('inet', { do: 'add rule', chain: 'c', rule })).toThrow(
      'can only be looked at in a table of family bridge',
    );
  }
});

test('an echo is answered by the same bytes with another type, and its checksum is right', () => {
  fc.assert(
    fc.property(
      families,
      fc.nat({ max: 0xffff }),
      fc.uint8Array({ maxLength: 100 }),
      (family, id, payload) => {
        const request = encodeEcho(family, id, payload);
        // The kernel computes that of ICMPv6, which covers the addresses too.
        expect(family === 4 ? internetChecksum(request) : 0).toBe(0);
        const answer = request.slice();
        answer[0] = family === 4 ? 0 : 129;
        const header = new Uint8Array(family === 4 ? 20 : 0);
        if (family === 4) header[0] = 0x45;
        const packet = (message: Uint8Array) => Uint8Array.of(...header, ...message);
        expect(isEchoReply(family, packet(answer), request)).toBe(true);
        expect(isEchoReply(family, packet(request), request)).toBe(false);
        answer[4] = (answer[4] ?? 0) ^ 1;
        expect(isEchoReply(family, packet(answer), request)).toBe(false);
      },
    ),
  );
});

/** Frames byte by byte, as tcpdump reads them: "ARP, Request who-has ... tell ..." and "neighbor advertisement ... sum ok". */
test('an announcement is a gratuitous ARP request or an unsolicited neighbour advertisement', () => {
  const mac = parseMac('02:fc:00:00:00:05');
  const hex = (text: string): string =>
    Buffer.from(encodeAnnouncement(parseIp(text), mac)).toString('hex');
  expect(hex('10.0.0.5')).toBe(
    [
      'ffffffffffff 02fc00000005 0806',
      '0001 0800 06 04 0001 02fc00000005 0a000005 000000000000 0a000005',
    ]
      .join('')
      .replaceAll(' ', ''),
  );
  expect(hex('fd00::5')).toBe(
    [
      '333300000001 02fc00000005 86dd',
      '60000000 0020 3a ff fd000000000000000000000000000005 ff020000000000000000000000000001',
      '88 00 5993 20000000 fd000000000000000000000000000005 02 01 02fc00000005',
    ]
      .join('')
      .replaceAll(' ', ''),
  );
});

test('an announcement names its address and MAC, and its checksum is right', () => {
  fc.assert(
    fc.property(families.chain(ipOf), macs, (ip, mac) => {
      const frame = encodeAnnouncement(ip, mac);
      expect(frame.subarray(6, 12)).toEqual(macBytes(mac));
      const address = ipBytes(ip);
      if (address.length === 4) {
        expect(frame.subarray(22, 32)).toEqual(Uint8Array.of(...macBytes(mac), ...address));
        return;
      }
      expect(frame.subarray(62, 78)).toEqual(address);
      expect(frame.subarray(80, 86)).toEqual(macBytes(mac));
      // The addresses lie together in the IPv6 header; length 32, next header 58.
      const covered = Uint8Array.of(...frame.subarray(22, 54), 0, 32, 0, 58, ...frame.subarray(54));
      expect(internetChecksum(covered)).toBe(0);
    }),
  );
});
