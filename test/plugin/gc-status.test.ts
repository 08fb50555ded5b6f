/** GC, STATUS and lost records, each by what another call would have done. */
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import type { Ip } from '../../model/ip.ts';
import { formatKey } from '../../plugin/attachment.ts';
import { type Added, add } from '../../plugin/call/add.ts';
import { checkCall, findings } from '../../plugin/call/check.ts';
import { del } from '../../plugin/call/del.ts';
import { gc } from '../../plugin/call/gc.ts';
import { rebuild } from '../../plugin/call/rebuild.ts';
import { status } from '../../plugin/call/status.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import { CniError } from '../../plugin/cni/error.ts';
import { IN_MEMORY, openStore } from '../../plugin/store/open.ts';
import {
  type RawConfig,
  configurations,
  layer2Configurations,
} from '../arbitraries/configuration.ts';
import { withoutForwarding } from './lasting.ts';
import { type Machine, attachPod, makeMachine, plainHost, requestFor, stateOf } from './machine.ts';

vi.setConfig({ testTimeout: 60_000 });

/** The networks of the pods: the first two share one. */
function networks(): fc.Arbitrary<readonly [RawConfig, RawConfig, RawConfig]> {
  const any = fc.oneof({ weight: 4, arbitrary: configurations() }, layer2Configurations());
  return fc.tuple(any, any).map(([raw, other]) => [raw, raw, { ...other, name: 'other' }]);
}

/** Attaches each pod to its network, and answers the results where that worked: networks may be in each other's way. */
function attachAll(machine: Machine, raws: readonly RawConfig[]): Map<number, Added['result']> {
  return new Map(
    raws.flatMap((raw, pod) => {
      try {
        return [[pod, attachPod(machine, raw, pod).result] as const];
      } catch (error) {
        if (!(error instanceof CniError)) throw error;
        return [];
      }
    }),
  );
}

/** The code of the CniError that a call ends with, undefined when it succeeds. */
function codeOf(call: () => unknown): number | undefined {
  try {
    call();
    return undefined;
  } catch (error) {
    if (error instanceof CniError) return error.code;
    throw error;
  }
}

describe('GC', () => {
  it('leaves what DEL of all that is not valid would have left', () => {
    fc.assert(
      fc.property(
        networks(),
        fc.subarray(['c0', 'c1', 'c2', 'never-there']),
        fc.constantFrom('cni.dev/valid-attachments', 'cni.dev/attachments'),
        (raws, valid, name) => {
          const [collected, deleted] = [makeMachine(plainHost()), makeMachine(plainHost())];
          const pods = attachAll(collected, raws);
          expect(attachAll(deleted, raws)).toEqual(pods);
          const list = valid.map((containerID) => ({ containerID, ifname: 'eth0' }));
          const raw = { ...raws[0], cniVersion: '1.1.0', [name]: list };
          gc(collected.start(), requestFor('GC', raw, 0));
          for (const pod of pods.keys())
            if (pod < 2 && !valid.includes(`c${pod}`))
              del(deleted.start(), requestFor('DEL', raws[0], pod).key);
          expect(withoutForwarding(collected.backend.host())).toEqual(
            withoutForwarding(deleted.backend.host()),
          );
          for (const network of ['net', 'other'])
            expect(stateOf(collected, network)).toEqual(stateOf(deleted, network));
        },
      ),
    );
  });
});

describe('STATUS', () => {
  it('is 50 exactly when ADD is refused, and changes nothing', () => {
    const seen = new Map<unknown, number>();
    fc.assert(
      fc.property(
        fc.record({
          length: fc.constantFrom(28, 29, 30),
          pods: fc.nat(7),
          gone: fc.nat(3),
          reserved: fc.subarray([2, 3, 4, 5, 6]),
          exclude: fc.subarray(['10.9.0.3/32', '10.9.0.4/30']),
          reuseDelaySeconds: fc.constantFrom(0, 60),
        }),
        ({ length, pods, gone, reserved, exclude, reuseDelaySeconds }) => {
          const subnet = `10.9.0.0/${length}`;
          const raw = {
            cniVersion: '1.1.0',
            name: 'net',
            isGateway: true,
            ipam: { type: 'cube-ipam', ranges: [[{ subnet }]], exclude, reuseDelaySeconds },
          };
          const machine = makeMachine(plainHost());
          const addOne = (at: number): void => {
            const request = requestFor('ADD', raw, 0, { containerId: `p${at}`, ifname: `e${at}` });
            add(machine.start(), request, parseConfig(request.config)).finish();
          };
          for (let at = 0; at < pods; at += 1) codeOf(() => addOne(at));
          for (const { attachment } of machine.state.list().slice(0, gone))
            del(machine.start(), attachment.key);
          machine.reserved = reserved.map((last) => `10.9.0.${last}` as Ip);
          const before = [machine.backend.host(), stateOf(machine)];
          const request = requestFor('STATUS', raw, 0);
          const told = codeOf(() => status(machine.start(), request, parseConfig(request.config)));
          expect([machine.backend.host(), stateOf(machine)]).toEqual(before);
          const done = codeOf(() => addOne(99));
          expect(told).toBe(done === 102 ? 50 : done);
          seen.set(told, (seen.get(told) ?? 0) + 1);
        },
      ),
      { numRuns: 300 },
    );
    for (const code of [50, undefined]) expect(seen.get(code) ?? 0).toBeGreaterThan(20);
  });
});

/**
 * Is a network of VLAN 1, in which a bridge puts every port, beside one of the same bridge without VLANs? Their ports are
 * alike to the kernel, so that the gateway of the first is taken for that of the second too.
 */
function mixesDefaultVlan(raws: readonly RawConfig[]): boolean {
  const bridges = (isTagged: boolean): unknown[] =>
    raws
      .filter((raw) => ('vlan' in raw && raw['vlan'] === 1) === isTagged)
      .map((raw) => raw['bridge']);
  const plain = bridges(false);
  return bridges(true).some((bridge) => plain.includes(bridge));
}

/**
 * Has one network a gateway in a VLAN, and another of the same bridge, VLAN and subnets none? To the kernel the second looks as if
 * it had that one too, so that where its pods have host ports, CHECK looks for 127.0.0.1's door at the link of the gateway.
 */
function borrowsGateway(raws: readonly RawConfig[]): boolean {
  const places = (hasGateway: boolean): unknown[] =>
    raws
      .filter(
        (raw) =>
          ('vlan' in raw || 'vlanTrunk' in raw) &&
          (raw['isGateway'] === true || raw['isDefaultGateway'] === true) === hasGateway,
      )
      .map((raw) => raw['bridge']);
  const without = places(false);
  return places(true).some((place) => without.includes(place));
}

describe('records made anew of what the kernel has', () => {
  it('are enough for CHECK, and for DEL to leave the host as it was', () => {
    fc.assert(
      fc.property(networks(), (raws) => {
        fc.pre(!mixesDefaultVlan(raws) && !borrowsGateway(raws));
        const machine = makeMachine(plainHost());
        const before = withoutForwarding(machine.backend.host());
        const attached = attachAll(machine, raws);
        const had = machine.state.list();
        // Networks that hand out one address share its elements, which name one owner.
        const ips = had.flatMap(({ attachment }) => attachment.addresses.map(({ ip }) => ip));
        fc.pre(new Set(ips).size === ips.length);
        // A gateway that another network has replaced is missing before too.
        const sound = [...attached].filter(([pod]) => {
          const { key } = requestFor('CHECK', raws[pod] as RawConfig, pod);
          return findings(machine.start(), key).length === 0;
        });
        const lost = (): ReturnType<Machine['start']> => ({ ...machine.start(), state });
        const state = openStore(IN_MEMORY, 'boot');
        const names = rebuild(lost());
        expect(names.toSorted()).toEqual(
          had.map(({ attachment }) => formatKey(attachment.key)).toSorted(),
        );
        for (const { attachment } of had)
          expect(
            state
              .find(attachment.key)
              ?.attachment.addresses.map(({ ip }) => ip)
              .toSorted(),
          ).toEqual(attachment.addresses.map(({ ip }) => ip).toSorted());
        for (const [pod, prevResult] of sound)
          checkCall(lost(), requestFor('CHECK', { ...raws[pod], prevResult }, pod));
        for (const pod of attached.keys())
          del(lost(), requestFor('DEL', raws[pod] as RawConfig, pod).key);
        expect(withoutForwarding(machine.backend.host())).toEqual(before);
        expect(state.list()).toEqual([]);
        expect(rebuild(lost())).toEqual([]);
      }),
      { numRuns: 200 },
    );
  });
});
