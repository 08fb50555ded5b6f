import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { HOST_NETNS, type Host, getNetns, withNetns } from '../../model/host.ts';
import type { NftCommand, SetElement, Statement, Table, Target } from '../../model/nftables.ts';
import { type ReachChange, reachChange } from '../../sim/reach-change.ts';
import { formatChange } from '../../sim/reach-ports-text.ts';
import type { PortDelta } from '../../sim/reach-ports.ts';
import { reachDelta } from '../../sim/reach.ts';
import { type Mapping, doors, portMappings } from '../arbitraries/port-mappings.ts';
import { attachPod } from '../plugin/machine.ts';
import { ROUTED, breakageLists, carriedOut } from './hosts.ts';
import { applyAll } from './pods.ts';
import { UPLINK, nodeWith, turnOfAdd, turnOfDel, withPorts } from './published-host.ts';
import { rulesets } from './rulesets.ts';

vi.setConfig({ testTimeout: 60_000 });

const ALL = 100_000;

const WEB: Mapping = { protocol: 'tcp', hostPort: 8080, containerPort: 80 };

function mirroredPorts(delta: PortDelta): PortDelta {
  const changes = delta.changes.map(({ was, is, ...asked }) => ({ ...asked, was: is, is: was }));
  return { ...delta, changes };
}

/** What the change back would be. */
function mirrored({ connected, cut, translated, ports, ...rest }: ReachChange): ReachChange {
  return {
    ...rest,
    connected: cut,
    cut: connected,
    translated: translated.map((each) => ({ ...each, was: each.is, is: each.was })),
    ports: mirroredPorts(ports),
  };
}

/** A routed host with rules, translations among them. */
function ruledHosts(): fc.Arbitrary<Host> {
  return fc
    .tuple(breakageLists(2), rulesets())
    .map((lists) => carriedOut(ROUTED, lists.flat()).host);
}

/** Who answers whom outside, each port once. */
function toOutside({ changes }: PortDelta): string[] {
  return changes
    .filter(({ from }) => from.netns === null)
    .map(({ protocol, ip, port, is }) => {
      const whom = is === null || is === 'unknown' ? is : `${is.ip} ${is.port} in ${is.netns}`;
      return `${protocol} ${ip} ${port}: ${whom}`;
    });
}

/** What a configuration promises to whoever asks from outside. */
function promised(mappings: readonly Mapping[]): string[] {
  return mappings.flatMap(({ protocol, hostPort, containerPort, hostIP = '', range = 0 }) =>
    UPLINK.flatMap((ip, at) => {
      const every = ['0.0.0.0', '::'][at];
      if (protocol === 'sctp' || ![ip, every, ''].includes(hostIP)) return [];
      const pod = ['10.7.0.4', 'fd07::4'][at];
      return Array.from(
        { length: Math.max(range, 1) },
        (_, by) =>
          `${protocol} ${ip} ${hostPort + by}: ${pod} ${containerPort + by} in /run/netns/pod0`,
      );
    }),
  );
}

describe('what a change makes of published ports', () => {
  it('is of a pod that comes what its configuration promises to whoever is outside', () => {
    fc.assert(
      fc.property(portMappings(1), doors(), ([mappings = []], door) => {
        const { before, after } = turnOfAdd(nodeWith(2), withPorts(mappings, door));
        const { ports } = reachChange(before, after, ALL);
        expect(toOutside(ports).toSorted()).toEqual(promised(mappings).toSorted());
        expect(ports.changes.every(({ was, is }) => was === null && is !== 'unknown')).toBe(true);
        expect(ports.notAsked.length > 0).toBe(mappings.some((each) => each.protocol === 'sctp'));
        expect(ports.leftOut).toBe(0);
      }),
      { numRuns: 15 },
    );
  });

  it('is the mirror image for the pod that goes again', () => {
    let changes = 0;
    fc.assert(
      fc.property(portMappings(2), doors(), ([own = [], others = []], door) => {
        const machine = nodeWith(1);
        attachPod(machine, withPorts(others), 2);
        const raw = withPorts(own, door);
        const added = turnOfAdd(machine, raw);
        attachPod(machine, raw, 0);
        const removed = turnOfDel(machine, raw);
        const there = reachChange(added.before, added.after, ALL);
        expect(mirrored(reachChange(removed.before, removed.after, ALL))).toEqual(there);
        changes += there.ports.changes.length;
      }),
      { numRuns: 10 },
    );
    expect(changes).toBeGreaterThan(0);
  });

  it('is nothing where nothing changes', () => {
    fc.assert(
      fc.property(ruledHosts(), (host) => {
        const { ports, translated } = reachChange(host, structuredClone(host), ALL);
        expect([ports.changes, ports.notAsked, translated]).toEqual([[], [], []]);
        const same = reachChange(host, host, ALL);
        expect([same.tried, same.ports.tried]).toEqual([0, 0]);
        expect(formatChange(same)).toBe('Reach: nothing changes.\n');
      }),
      { numRuns: 5 },
    );
  });

  it('is the mirror image for any change back, also where some is left out', () => {
    let [changes, translated] = [0, 0];
    fc.assert(
      fc.property(ruledHosts(), ruledHosts(), fc.integer({ min: 2, max: 150 }), (a, b, most) => {
        const there = reachChange(a, b, most);
        expect(mirrored(reachChange(b, a, most))).toEqual(there);
        changes += there.ports.changes.length;
        translated += there.translated.length;
      }),
      { numRuns: 20 },
    );
    expect(Math.min(changes, translated)).toBeGreaterThan(0);
  });

  it('keeps with the pairs to what may be tried, and counts what is left out', () => {
    fc.assert(
      fc.property(portMappings(1), fc.integer({ min: 2, max: 200 }), ([own = []], most) => {
        const { before, after } = turnOfAdd(nodeWith(2), withPorts(own));
        const all = reachChange(before, after, ALL);
        const some = reachChange(before, after, most);
        expect(some.tried + some.ports.tried).toBeLessThanOrEqual(most);
        // A fourth is the ports' own.
        expect(some.ports.tried).toBeGreaterThanOrEqual(
          Math.min(all.ports.tried, Math.floor(most / 4)),
        );
        expect(some.tried + some.leftOut).toBe(all.tried);
        expect(some.ports.tried + some.ports.leftOut).toBe(all.ports.tried);
        expect(all.ports.changes).toEqual(expect.arrayContaining([...some.ports.changes]));
        expect(formatChange(some).includes('not asked, which are too many')).toBe(
          some.ports.leftOut > 0,
        );
      }),
      { numRuns: 10 },
    );
  });

  it('asks first for the ports that come or go', () => {
    const machine = nodeWith(1);
    const many = Array.from({ length: 9 }, (_, at) => ({ ...WEB, hostPort: 9000 + at }));
    attachPod(machine, withPorts(many), 2);
    const { before, after } = turnOfAdd(machine, withPorts([WEB]));
    const all = reachChange(before, after, ALL);
    expect(all.ports.changes.length).toBe(11);
    // A fourth of it is as many as there are to ask about the new port.
    const { ports } = reachChange(before, after, 44);
    expect(ports.tried).toBeLessThan(all.ports.tried);
    expect(ports.changes).toEqual(all.ports.changes);
  });

  it('leaves the pairs as they are where no port is published', () => {
    fc.assert(
      fc.property(breakageLists(), fc.integer({ min: 2, max: 100 }), (ops, most) => {
        const { host } = carriedOut(ROUTED, ops);
        const { ports, ...pairs } = reachChange(ROUTED, host, most);
        expect(pairs).toEqual(reachDelta(ROUTED, host, most));
        expect(ports).toMatchObject({ changes: [], askers: [], tried: 0, leftOut: 0 });
      }),
      { numRuns: 5 },
    );
  });
});

/** What our table is changed by, beside its name. */
type TableCommand = DistributiveOmit<NftCommand, 'family' | 'table'>;
type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

function leading(target: string): SetElement {
  return {
    key: 'tcp . 8080',
    verdict: null,
    target: target as Target,
    comment: '',
  };
}

/** The node with a rule that is not understood, of which it hangs whether anything is forwarded. Nobody writes such rules by an operation: they are read. */
function withUnknownRule(host: Host): Host {
  const hook = { type: 'filter', hook: 'forward', priority: 0, policy: 'accept' } as const;
  const statements: Statement[] = [
    { kind: 'opaque', expression: 'match u32' },
    { kind: 'verdict', verdict: 'drop' },
  ];
  const rules = [{ statements, comment: '' }];
  const table: Table = {
    family: 'ip',
    name: 'other',
    chains: { FORWARD: { name: 'FORWARD', hook, rules } },
    sets: {},
  };
  const node = getNetns(host, HOST_NETNS);
  return withNetns(host, HOST_NETNS, { ...node, nftables: { ...node.nftables, other: table } });
}

/** The node after something was done to its table, beside the plugin. */
function tampered(host: Host, ...commands: readonly TableCommand[]): Host {
  const ref = { family: 'inet', table: 'cube-cni' } as const;
  return applyAll(host, [
    {
      op: 'nft.batch',
      netns: HOST_NETNS,
      commands: commands.map((each): NftCommand => ({ ...ref, ...each })),
    },
  ]);
}

/** With pods by their names. */
function textOf(before: Host, after: Host, most = ALL): string {
  const change = JSON.stringify(reachChange(before, after, most)).replaceAll('/run/netns/', '');
  return formatChange(JSON.parse(change) as ReachChange);
}

/** The part about ports. */
function portsText(before: Host, after: Host, most = ALL): string {
  const text = textOf(before, after, most);
  return text.slice(text.indexOf('\n', text.indexOf('Reach: ')) + 1);
}

const IPV4 = { ipam: { type: 'cube-ipam', subnet: '10.7.0.0/24' } };

describe('published ports, for people', () => {
  it('of a pod that comes, and goes', () => {
    const machine = nodeWith(1, IPV4);
    const raw = withPorts([WEB, { ...WEB, protocol: 'sctp' }], IPV4);
    const { before, after } = turnOfAdd(machine, raw);
    expect(textOf(before, after)).toMatchInlineSnapshot(`
      "reach
        + pod0 10.7.0.3  <->  host 10.7.0.1
        + pod0 10.7.0.3  <->  host 192.168.1.5
        + pod0 10.7.0.3  <->  pod1 10.7.0.2
        + pod0 10.7.0.3  ->   the outside (192.0.2.1)
      Reach: 7 connected, 0 cut, of 15 pairs tried.
      published ports
        + host                     ->  127.0.0.1:8080/tcp, 10.7.0.1:8080/tcp, 192.168.1.5:8080/tcp, which is 10.7.0.3:80 in pod0
        + pod1 10.7.0.2            ->  10.7.0.1:8080/tcp, 192.168.1.5:8080/tcp, which is 10.7.0.3:80 in pod0
        + the outside (192.0.2.1)  ->  192.168.1.5:8080/tcp, which is 10.7.0.3:80 in pod0
      note: sctp 8080 of host not asked, which is not simulated: nothing is known of it
      Ports: 6 connected, 0 cut, of 6 questions from host, pod1, the outside.
      "
    `);
    expect(portsText(after, before)).toMatchInlineSnapshot(`
      "published ports
        - host                     ->  127.0.0.1:8080/tcp, 10.7.0.1:8080/tcp, 192.168.1.5:8080/tcp, which was 10.7.0.3:80 in pod0
        - pod1 10.7.0.2            ->  10.7.0.1:8080/tcp, 192.168.1.5:8080/tcp, which was 10.7.0.3:80 in pod0
        - the outside (192.0.2.1)  ->  192.168.1.5:8080/tcp, which was 10.7.0.3:80 in pod0
      note: sctp 8080 of host not asked, which is not simulated: nothing is known of it
      Ports: 0 connected, 6 cut, of 6 questions from host, pod1, the outside.
      "
    `);
  });

  it('of both families, at one address, and of a range', () => {
    const { before, after } = turnOfAdd(
      nodeWith(1),
      withPorts([
        { ...WEB, hostIP: '127.0.0.1' },
        { ...WEB, hostPort: 53, containerPort: 5353, protocol: 'udp', hostIP: '::' },
        { ...WEB, hostPort: 7000, containerPort: 7000, range: 2, hostIP: '0.0.0.0' },
      ]),
    );
    expect(portsText(before, after)).toMatchInlineSnapshot(`
      "published ports
        + host                       ->  127.0.0.1:7000/tcp, 10.7.0.1:7000/tcp, 192.168.1.5:7000/tcp, which is 10.7.0.3:7000 in pod0
        + pod1 10.7.0.2              ->  10.7.0.1:7000/tcp, 192.168.1.5:7000/tcp, which is 10.7.0.3:7000 in pod0
        + the outside (192.0.2.1)    ->  192.168.1.5:7000/tcp, which is 10.7.0.3:7000 in pod0
        + host                       ->  127.0.0.1:7001/tcp, 10.7.0.1:7001/tcp, 192.168.1.5:7001/tcp, which is 10.7.0.3:7001 in pod0
        + pod1 10.7.0.2              ->  10.7.0.1:7001/tcp, 192.168.1.5:7001/tcp, which is 10.7.0.3:7001 in pod0
        + the outside (192.0.2.1)    ->  192.168.1.5:7001/tcp, which is 10.7.0.3:7001 in pod0
        + host                       ->  127.0.0.1:8080/tcp, which is 10.7.0.3:80 in pod0
        + host, pod1 fd07::2         ->  [2001:db8:9::5]:53/udp, [fd07::1]:53/udp, which is [fd07::3]:5353 in pod0
        + the outside (2001:db8::1)  ->  [2001:db8:9::5]:53/udp, which is [fd07::3]:5353 in pod0
      Ports: 18 connected, 0 cut, of 18 questions from host, pod1, the outside.
      "
    `);
  });

  it('that lead to another, to somebody else than this host, or to whom is not known', () => {
    const machine = nodeWith(2, IPV4);
    attachPod(machine, withPorts([WEB], IPV4), 0);
    const host = machine.backend.host();
    const to = (target: string): Host =>
      tampered(
        host,
        { do: 'delete element', set: 'ports4', key: 'tcp . 8080' },
        { do: 'add element', set: 'ports4', element: leading(target) },
      );
    expect(portsText(host, to('10.7.0.2 . 81'))).toMatchInlineSnapshot(`
      "published ports
        - host                     ->  127.0.0.1:8080/tcp, which was 10.7.0.4:80 in pod0
        - pod0 10.7.0.4            ->  10.7.0.1:8080/tcp, 192.168.1.5:8080/tcp, which was 10.7.0.4:80 in pod0
        ~ host                     ->  10.7.0.1:8080/tcp, 192.168.1.5:8080/tcp, which is 10.7.0.2:81 in pod1 instead of 10.7.0.4:80 in pod0
        ~ the outside (192.0.2.1)  ->  192.168.1.5:8080/tcp, which is 10.7.0.2:81 in pod1 instead of 10.7.0.4:80 in pod0
      Ports: 0 connected, 3 cut, 3 changed, of 6 questions from host, pod0, the outside.
      "
    `);
    expect(portsText(host, to('203.0.113.9 . 80'))).toMatchInlineSnapshot(`
      "published ports
        - the outside (192.0.2.1)  ->  192.168.1.5:8080/tcp, which was 10.7.0.4:80 in pod0
        ~ host                     ->  127.0.0.1:8080/tcp, 10.7.0.1:8080/tcp, 192.168.1.5:8080/tcp, which is 203.0.113.9:80 outside instead of 10.7.0.4:80 in pod0
        ~ pod0 10.7.0.4            ->  10.7.0.1:8080/tcp, 192.168.1.5:8080/tcp, which is 203.0.113.9:80 outside instead of 10.7.0.4:80 in pod0
      Ports: 0 connected, 1 cut, 5 changed, of 6 questions from host, pod0, the outside.
      "
    `);
    expect(portsText(host, withUnknownRule(host))).toMatchInlineSnapshot(`
      "published ports
        ? pod0 10.7.0.4            ->  10.7.0.1:8080/tcp, 192.168.1.5:8080/tcp, which was 10.7.0.4:80 in pod0, and is not known
        ? the outside (192.0.2.1)  ->  192.168.1.5:8080/tcp, which was 10.7.0.4:80 in pod0, and is not known
      Ports: 0 connected, 0 cut, 3 not known, of 6 questions from host, pod0, the outside.
      "
    `);
  });

  it('whose pod takes another for the sender', () => {
    const machine = nodeWith(1, IPV4);
    attachPod(machine, withPorts([WEB], IPV4), 0);
    const host = machine.backend.host();
    const masquerade = { statements: [{ kind: 'masquerade' }], comment: '' } as const;
    const after = tampered(host, { do: 'add rule', chain: 'snat-10.7.0.0-24', rule: masquerade });
    expect(portsText(host, after)).toMatchInlineSnapshot(`
      "published ports
        ~ host                     ->  192.168.1.5:8080/tcp, which is 10.7.0.3:80 in pod0: seen as 10.7.0.1 instead of 192.168.1.5
        ~ the outside (192.0.2.1)  ->  192.168.1.5:8080/tcp, which is 10.7.0.3:80 in pod0: seen as 10.7.0.1 instead of 192.0.2.1
      Ports: 0 connected, 0 cut, 2 changed, of 6 questions from host, pod0, the outside.
      "
    `);
  });

  it('that are too many', () => {
    const ports = Array.from({ length: 30 }, (_, at) => ({ ...WEB, hostPort: 8000 + at }));
    const { before, after } = turnOfAdd(nodeWith(1, IPV4), withPorts(ports, IPV4));
    expect(portsText(before, after, 40)).toMatchInlineSnapshot(`
      "published ports
        + host                     ->  10.7.0.1:8001/tcp, which is 10.7.0.3:80 in pod0
        + host                     ->  192.168.1.5:8002/tcp, which is 10.7.0.3:80 in pod0
        + pod1 10.7.0.2            ->  10.7.0.1:8003/tcp, which is 10.7.0.3:80 in pod0
        + pod1 10.7.0.2            ->  192.168.1.5:8004/tcp, which is 10.7.0.3:80 in pod0
        + the outside (192.0.2.1)  ->  192.168.1.5:8005/tcp, which is 10.7.0.3:80 in pod0
        + host                     ->  10.7.0.1:8007/tcp, which is 10.7.0.3:80 in pod0
        + host                     ->  192.168.1.5:8008/tcp, which is 10.7.0.3:80 in pod0
        + pod1 10.7.0.2            ->  10.7.0.1:8009/tcp, which is 10.7.0.3:80 in pod0
        + pod1 10.7.0.2            ->  192.168.1.5:8010/tcp, which is 10.7.0.3:80 in pod0
        + the outside (192.0.2.1)  ->  192.168.1.5:8011/tcp, which is 10.7.0.3:80 in pod0
        + host                     ->  10.7.0.1:8013/tcp, which is 10.7.0.3:80 in pod0
        + host                     ->  192.168.1.5:8014/tcp, which is 10.7.0.3:80 in pod0
        + pod1 10.7.0.2            ->  10.7.0.1:8015/tcp, which is 10.7.0.3:80 in pod0
        + pod1 10.7.0.2            ->  192.168.1.5:8016/tcp, which is 10.7.0.3:80 in pod0
        + the outside (192.0.2.1)  ->  192.168.1.5:8017/tcp, which is 10.7.0.3:80 in pod0
        + host                     ->  10.7.0.1:8019/tcp, which is 10.7.0.3:80 in pod0
        + host                     ->  192.168.1.5:8020/tcp, which is 10.7.0.3:80 in pod0
        + pod1 10.7.0.2            ->  10.7.0.1:8021/tcp, which is 10.7.0.3:80 in pod0
        + pod1 10.7.0.2            ->  192.168.1.5:8022/tcp, which is 10.7.0.3:80 in pod0
        + the outside (192.0.2.1)  ->  192.168.1.5:8023/tcp, which is 10.7.0.3:80 in pod0
      note: 5 lines more, which --format json has
      note: 155 questions about published ports not asked, which are too many: nothing is known of them
      Ports: 25 connected, 0 cut, of 25 questions from host, pod1, the outside.
      "
    `);
  });
});

describe('whose address the other side sees, for people', () => {
  it('of pods that are no longer masqueraded', () => {
    const machine = nodeWith(2, IPV4);
    const before = machine.backend.host();
    const after = tampered(before, { do: 'flush chain', chain: 'postrouting' });
    expect(textOf(before, after)).toMatchInlineSnapshot(`
      "reach
        ~ pod1 10.7.0.2, pod2 10.7.0.3  ->  the outside (192.0.2.1): seen as their own address instead of 192.168.1.5
      Reach: 0 connected, 0 cut, 2 seen otherwise, of 15 pairs tried.
      "
    `);
    expect(textOf(after, before)).toMatchInlineSnapshot(`
      "reach
        ~ pod1 10.7.0.2, pod2 10.7.0.3  ->  the outside (192.0.2.1): seen as 192.168.1.5 instead of their own address
      Reach: 0 connected, 0 cut, 2 seen otherwise, of 15 pairs tried.
      "
    `);
  });

  it('of one pod', () => {
    const before = nodeWith(1, IPV4).backend.host();
    const after = tampered(before, { do: 'flush chain', chain: 'postrouting' });
    expect(textOf(before, after)).toMatchInlineSnapshot(`
      "reach
        ~ pod1 10.7.0.2  ->  the outside (192.0.2.1): seen as 10.7.0.2 instead of 192.168.1.5
      Reach: 0 connected, 0 cut, 1 seen otherwise, of 8 pairs tried.
      "
    `);
  });
});
