import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { HOST_NETNS, getNetns } from '../../model/host.ts';
import type { Table } from '../../model/nftables.ts';
import { planAdd } from '../../plugin/call/add.ts';
import { del } from '../../plugin/call/del.ts';
import { rebuild } from '../../plugin/call/rebuild.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import { formatPlanned } from '../../plugin/process/plan-output.ts';
import { IN_MEMORY, openStore } from '../../plugin/store/open.ts';
import { TABLE_KEY } from '../../plugin/table.ts';
import type { RawConfig } from '../arbitraries/configuration.ts';
import { withoutForwarding } from './lasting.ts';
import { type Machine, PODS, attachPod, makeMachine, plainHost, requestFor } from './machine.ts';
import { refusal } from './refusal.ts';

vi.setConfig({ testTimeout: 60_000 });

const CONFIG: RawConfig = {
  cniVersion: '1.1.0',
  name: 'net',
  type: 'cube-cni',
  ipMasq: true,
  ipam: { type: 'cube-ipam', ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]] },
};

const NO_DOOR: RawConfig = {};
const SOURCE: RawConfig = { conditionsV4: ['-s', '192.0.2.0/24'] };
const DOORS: readonly RawConfig[] = [
  NO_DOOR,
  SOURCE,
  { markMasqBit: 5 },
  { conditionsV6: ['iifname', '!=', 'eth0', 'ip6', 'saddr', 'fd00::/8'], masqAll: true },
  { markMasqBit: 31, conditionsV4: ['!', '-i', 'eth0'], snat: false },
];

function configFor(door: RawConfig, port = 8080): RawConfig {
  const portMappings = [
    { hostPort: port, containerPort: 80 },
    { hostPort: port, containerPort: 53, protocol: 'udp', hostIP: '192.0.2.1' },
  ];
  return { ...CONFIG, ...door, runtimeConfig: { portMappings } };
}

function tableOn({ backend }: Machine): Table | undefined {
  return getNetns(backend.host(), HOST_NETNS).nftables[TABLE_KEY];
}

/** The names of a door's chains and maps are those of the default one, and behind them its own. */
function doorsOn(machine: Machine): string[] {
  const { chains = {}, sets = {} } = tableOn(machine) ?? {};
  const ofDoors =
    /^(?:(?:host-)?ports[46]|host-ports|host-ports-(?:in|out|snat))(?:-([0-9a-f]{8}))?$/;
  const found = [...Object.keys(chains), ...Object.keys(sets)].flatMap((name) => {
    const match = ofDoors.exec(name);
    return match ? [match[1] ?? ''] : [];
  });
  return [...new Set(found)].toSorted();
}

/** The doors that the records tell of. */
function doorsIn({ state }: Pick<Machine, 'state'>): string[] {
  const names = state
    .list()
    .flatMap(({ attachment: { hostPorts } }) => (hostPorts ? [hostPorts.door?.name ?? ''] : []));
  return [...new Set(names)].toSorted();
}

/** A machine with a pod behind each of these doors. */
function machineWith(...doors: readonly RawConfig[]): Machine {
  const machine = makeMachine(plainHost());
  for (const [pod, door] of doors.entries()) attachPod(machine, configFor(door), pod);
  return machine;
}

function doorName(raw: RawConfig): string {
  return doorsIn(machineWith(raw)).join(' ');
}

describe('doors', () => {
  it('are there while a pod has ports behind them, whatever pods come and go', () => {
    const steps = fc.array(fc.tuple(fc.nat(PODS.length - 1), fc.constantFrom(...DOORS)), {
      minLength: 4,
      maxLength: 12,
    });
    const most = new Set<number>();
    fc.assert(
      fc.property(steps, (choices) => {
        const machine = makeMachine(plainHost());
        const before = machine.backend.host();
        const living = new Map<number, RawConfig>();
        const remove = (pod: number): void => {
          del(machine.start(), requestFor('DEL', CONFIG, pod).key);
          living.delete(pod);
        };
        for (const [pod, door] of choices) {
          if (living.has(pod)) remove(pod);
          else {
            attachPod(machine, configFor(door), pod);
            living.set(pod, door);
          }
          expect(doorsOn(machine)).toEqual(doorsIn(machine));
          expect(doorsOn(machine)).toHaveLength(new Set(living.values()).size);
          most.add(doorsOn(machine).length);
        }
        for (const pod of living.keys()) remove(pod);
        expect(withoutForwarding(machine.backend.host())).toEqual(withoutForwarding(before));
      }),
      { numRuns: 100 },
    );
    expect([...most].toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3]);
  });

  it('are one where bit and conditions are, in whatever words', () => {
    expect(doorName(NO_DOOR)).toBe('');
    expect(doorName({ markMasqBit: 13, conditionsV4: [], conditionsV6: [] })).toBe('');
    expect(doorName({ conditionsV4: ['ip', 'saddr', '192.0.2.7/24'] })).toBe(doorName(SOURCE));
    const others = [
      ...DOORS.slice(2),
      { conditionsV4: ['!', '-s', '192.0.2.0/24'] },
      { conditionsV4: ['-d', '192.0.2.0/24'] },
      { ...SOURCE, markMasqBit: 12 },
      { ...SOURCE, conditionsV6: ['-s', 'fd00::/8'] },
    ];
    const names = [NO_DOOR, SOURCE, ...others].map(doorName);
    expect(new Set(names).size).toBe(names.length);
  });

  it('do not let two pods have one port', () => {
    const machine = machineWith(NO_DOOR);
    for (const door of DOORS)
      expect(refusal(() => attachPod(machine, configFor(door, 8079), 1))).toBe(
        '101 host port tcp 8080 is taken by net/c0/eth0 | at every address of this host',
      );
  });

  it('are known again when the records are lost', () => {
    for (const door of DOORS) {
      const machine = machineWith(door, NO_DOOR);
      const state = openStore(IN_MEMORY, 'boot');
      rebuild({ ...machine.start(), state });
      for (const { attachment } of machine.state.list()) {
        const { ports = [], ...more } = state.find(attachment.key)?.attachment.hostPorts ?? {};
        const { ports: expected = [], ...other } = attachment.hostPorts ?? {};
        expect(more).toEqual(other);
        expect(new Set(ports)).toEqual(new Set(expected));
      }
      expect(doorsIn({ state })).toEqual(doorsOn(machine));
    }
  });

  it('have rules of their own, and leave those of others as they are', () => {
    const machine = machineWith(NO_DOOR);
    const raw = configFor(
      {
        markMasqBit: 5,
        conditionsV4: ['!', '-s', '192.0.2.0/24', '-i', 'eth0'],
        conditionsV6: ['ip6', 'daddr', '2001:db8::1'],
      },
      9090,
    );
    const request = requestFor('ADD', raw, 1);
    const planned = planAdd(machine.start(), request, parseConfig(request.config));
    const lines = formatPlanned('ADD', planned, 'text').split('\n');
    expect(lines.filter((line) => line.includes('ports')).join('\n')).toMatchInlineSnapshot(`
      "  + nft add chain inet cube-cni host-ports-da029bb1
        + nft 'add chain inet cube-cni host-ports-in-da029bb1 { type nat hook prerouting priority -100; policy accept; }'
        + nft 'add chain inet cube-cni host-ports-out-da029bb1 { type nat hook output priority -100; policy accept; }'
        + nft 'add chain inet cube-cni host-ports-snat-da029bb1 { type nat hook postrouting priority 99; policy accept; }'
        + nft 'add map inet cube-cni host-ports4-da029bb1 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }'
        + nft 'add map inet cube-cni ports4-da029bb1 { type inet_proto . inet_service : ipv4_addr . inet_service; }'
        + nft 'add map inet cube-cni host-ports6-da029bb1 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }'
        + nft 'add map inet cube-cni ports6-da029bb1 { type inet_proto . inet_service : ipv6_addr . inet_service; }'
        + nft 'add element inet cube-cni host-ports4-da029bb1 { 192.0.2.1 . udp . 9091 comment "net/c1/eth0" : 10.7.0.3 . 53 }'
        + nft 'add element inet cube-cni ports4-da029bb1 { tcp . 9091 comment "net/c1/eth0" : 10.7.0.3 . 80 }'
        + nft 'add element inet cube-cni ports6-da029bb1 { tcp . 9091 comment "net/c1/eth0" : fd07::3 . 80 }'
        + nft 'add rule inet cube-cni host-ports-da029bb1 meta mark set meta mark | 0x00000020'
        + nft 'add rule inet cube-cni host-ports-da029bb1 ip saddr != 192.0.2.0/24 iifname "eth0" dnat ip to ip daddr . meta l4proto . th dport map @host-ports4-da029bb1'
        + nft add rule inet cube-cni host-ports-da029bb1 ip6 daddr 2001:db8::1 dnat ip6 to ip6 daddr . meta l4proto . th dport map @host-ports6-da029bb1
        + nft 'add rule inet cube-cni host-ports-da029bb1 ip saddr != 192.0.2.0/24 iifname "eth0" dnat ip to meta l4proto . th dport map @ports4-da029bb1'
        + nft add rule inet cube-cni host-ports-da029bb1 ip6 daddr 2001:db8::1 dnat ip6 to meta l4proto . th dport map @ports6-da029bb1
        + nft 'add rule inet cube-cni host-ports-da029bb1 meta mark set meta mark & 0xffffffdf'
        + nft add rule inet cube-cni host-ports-in-da029bb1 fib daddr type local jump host-ports-da029bb1
        + nft add rule inet cube-cni host-ports-out-da029bb1 fib daddr type local jump host-ports-da029bb1
        + nft 'add rule inet cube-cni host-ports-snat-da029bb1 meta mark & 0x00000020 == 0x00000020 ip daddr vmap @snat4'
        + nft 'add rule inet cube-cni host-ports-snat-da029bb1 meta mark & 0x00000020 == 0x00000020 ip6 daddr vmap @snat6'"
    `);
  });
});
