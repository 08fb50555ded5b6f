/**
 * Calls of different processes, switched between at every effect on the kernel, the state file and the
 * lock, as the scheduler of a machine might do it; failing and dying anywhere on the way.
 */
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { HOST_NETNS, type Host, findLink } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { add } from '../../plugin/call/add.ts';
import { findings } from '../../plugin/call/check.ts';
import type { CallContext } from '../../plugin/call/context.ts';
import { del } from '../../plugin/call/del.ts';
import { usesOf } from '../../plugin/call/usage.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import { type RawConfig, configurations } from '../arbitraries/configuration.ts';
import { machineHosts } from '../arbitraries/machine.ts';
import { usedBefore, withoutForwarding } from './lasting.ts';
import { type Machine, attachPod, makeMachine, plainHost, requestFor } from './machine.ts';
import {
  type Effect,
  type MachineLock,
  type Mishap,
  type StepwiseCall,
  makeStepwise,
  runToEnd,
} from './stepwise.ts';

// Each run takes hundreds of steps, and each step runs a call anew.
vi.setConfig({ testTimeout: 60_000 });

const ONE_NETWORK: RawConfig = {
  cniVersion: '1.0.0',
  name: 'net',
  ipam: { type: 'cube-ipam', subnet: '10.244.1.0/24' },
};

/** How one of the calls fares: a mishap at one of its effects of a kind, or death after some effects. */
interface Fate {
  readonly kind: Effect['kind'];
  readonly at: number;
  readonly mishap: Mishap;
  /** After so many effects its process is killed; undefined: it is not. */
  readonly dies: number | undefined;
}

function fates(): fc.Arbitrary<Fate> {
  const fine = fc.constant({ kind: 'unlock' as const, at: -1, mishap: undefined, dies: undefined });
  const mishap = fc.record({
    kind: fc.constantFrom<Effect['kind']>('execute', 'execute', 'execute', 'observe'),
    at: fc.nat(20),
    mishap: fc.constantFrom<Mishap>('refused', 'half'),
    dies: fc.constant(undefined),
  });
  const death = fc.record({
    kind: fc.constant('unlock' as const),
    at: fc.constant(-1),
    mishap: fc.constant(undefined),
    dies: fc.nat(45),
  });
  return fc.oneof(fine, mishap, death);
}

/** What goes wrong at the effect that a fate names, counted among those of its kind. */
function mishapOf({ kind, at, mishap }: Fate): (effect: Effect, index: number) => Mishap {
  let seen = -1;
  return (effect) => {
    if (effect.kind !== kind) return undefined;
    seen += 1;
    return seen === at ? mishap : undefined;
  };
}

/** Lets calls take turns as `turns` says until all have ended or died. */
function interleave(
  machine: Machine,
  calls: readonly StepwiseCall[],
  fate: readonly Fate[],
  turns: readonly number[],
): void {
  const running = new Set(calls.keys());
  for (let turn = 0; running.size > 0; turn += 1) {
    if (turn > 2000) throw new Error('the calls wait for each other');
    const left = [...running];
    // When the given turns are over, each goes on in its turn.
    const i = left[(turns[turn] ?? turn) % left.length] as number;
    const call = calls[i] as StepwiseCall;
    if (fate[i]?.dies !== undefined && call.effects() >= fate[i].dies) {
      call.kill();
      machine.living.delete(call.pid);
      running.delete(i);
    } else if (call.step() === 'ended') {
      machine.living.delete(call.pid);
      running.delete(i);
    }
  }
}

/** The same attachments on a machine where nothing ever happened but their ADDs, one after the other. */
function madeInPeace(machine: Machine, host: Host, networkOf: readonly RawConfig[]): unknown {
  const peace = makeMachine(host);
  const records = machine.state.list();
  for (const { attachment } of records) {
    const pod = Number(attachment.key.containerId.slice(1));
    const request = requestFor('ADD', networkOf[pod] as RawConfig, pod);
    const context = peace.start();
    // As if it had been begun before, so that it gets the address it has.
    peace.state.put(attachment, { pid: 1, startTime: 'dead' }, usesOf(attachment));
    add(context, request, parseConfig(request.config)).finish();
  }
  const made = peace.state.list().map(({ attachment }) => attachment);
  expect(made).toEqual(records.map(({ attachment }) => attachment));
  return withoutForwarding(peace.backend.host());
}

/** What must hold whenever no call is under way and nobody died. */
function expectOrder(machine: Machine, host: Host, networkOf: readonly RawConfig[]): void {
  const records = machine.state.list();
  const ips = records.flatMap(({ attachment }) => attachment.addresses.map(({ ip }) => ip));
  expect(new Set(ips).size).toBe(ips.length);
  for (const { attachment, state } of records) {
    expect(state).toBe('finished');
    expect(findings(machine.start(), attachment.key)).toEqual([]);
  }
  expect(withoutForwarding(machine.backend.host())).toEqual(madeInPeace(machine, host, networkOf));
}

/** A call of a pod. */
interface Errand {
  readonly verb: 'ADD' | 'DEL';
  readonly pod: number;
}

interface Course {
  /** How each call fares. */
  readonly fates: readonly Fate[];
  /** Who is next, again and again. */
  readonly turns: readonly number[];
  /** What the runtime does about a pod whose call died. */
  readonly healing: 'ADD' | 'DEL';
}

function courses(calls: number): fc.Arbitrary<Course> {
  return fc.record({
    fates: fc.array(fates(), { minLength: calls, maxLength: calls }),
    turns: fc.array(fc.nat(5), { maxLength: 150 }),
    healing: fc.constantFrom('ADD' as const, 'DEL' as const),
  });
}

/** Runs calls on a machine where pod 2 is attached, and then does what a runtime does about those that did not succeed. */
function runCourse(
  host: Host,
  networkOf: readonly RawConfig[],
  errands: readonly Errand[],
  course: Course,
): { readonly machine: Machine; readonly calls: readonly StepwiseCall[] } {
  const machine = makeMachine(host);
  attachPod(machine, networkOf[2] as RawConfig, 2);
  const lock: MachineLock = { holder: undefined };
  const calls = errands.map(({ verb, pod }, i) => {
    const request = requestFor(verb, networkOf[pod] as RawConfig, pod);
    const run = (context: CallContext): void => {
      if (verb === 'DEL') del(context, request.key);
      else add(context, request, parseConfig(request.config)).finish();
    };
    return makeStepwise(machine.start(), lock, run, mishapOf(course.fates[i] as Fate));
  });
  interleave(machine, calls, course.fates, course.turns);
  expect(lock.holder).toBeUndefined();
  for (const { verb, pod } of errands) {
    const request = requestFor('DEL', networkOf[pod] as RawConfig, pod);
    const record = machine.state.find(request.key);
    const isAdded = !errands.some((errand) => errand.pod === pod && errand.verb === 'DEL');
    if (record?.state === 'pending' && course.healing === 'ADD' && isAdded)
      attachPod(machine, networkOf[pod] as RawConfig, pod);
    else if (record && (record.state === 'pending' || verb === 'DEL'))
      del(machine.start(), request.key);
  }
  return { machine, calls };
}

/** Removes all pods, after which the host has to be as it was. */
function expectNothingLeft(machine: Machine, host: Host): void {
  const attachments = machine.state.list().map(({ attachment }) => attachment);
  for (const { key } of attachments) del(machine.start(), key);
  const gateways = attachments.flatMap(({ bridge, addresses }) =>
    addresses.map(({ gateway }) => `gateway ${bridge} ${gateway}` as const),
  );
  expect(gateways.filter(machine.state.isClaimed)).toEqual([]);
  expect(withoutForwarding(machine.backend.host())).toEqual(withoutForwarding(host));
}

/** Configurations of one network for all pods, or of another for pod 1, on the same bridge. */
function networks(): fc.Arbitrary<readonly RawConfig[]> {
  return fc.tuple(configurations(), configurations(), fc.boolean()).map(([a, b, same]) => {
    const first = { ...a, bridge: 'cni0', forceAddress: false };
    const second = {
      ...b,
      name: 'other',
      bridge: 'cni0',
      forceAddress: false,
      // A bridge that is promiscuous stays so as long as it is there.
      promiscMode: a['promiscMode'] ?? false,
      hairpinMode: a['hairpinMode'] ?? false,
      // Two networks cannot have the same addresses: the masquerade of one would be that of the other.
      ipam: {
        type: 'cube-ipam',
        ranges: [[{ subnet: '10.250.0.0/24' }], [{ subnet: 'fd0a::/64' }]],
      },
    };
    return same ? [first, first, first] : [first, second, first];
  });
}

/** Can pods of these networks be on this host at all, one after the other? */
function isPossible(host: Host, networkOf: readonly RawConfig[]): boolean {
  try {
    const machine = makeMachine(host);
    for (const [pod, raw] of networkOf.entries()) attachPod(machine, raw, pod);
    return true;
  } catch {
    return false;
  }
}

/** What happened in all runs of a property, so that it can be seen to have looked at something. */
interface Tally {
  left: number[];
  died: number;
  failed: number;
}

function count(
  tally: Tally,
  { machine, calls }: ReturnType<typeof runCourse>,
  course: Course,
): void {
  const left = machine.state.list().length;
  tally.left[left] = (tally.left[left] ?? 0) + 1;
  tally.died += course.fates.filter(({ dies }) => dies !== undefined).length;
  tally.failed += calls.filter((call) => call.error() !== undefined).length;
}

const TWO_ADDS_AND_A_DEL: readonly Errand[] = [
  { verb: 'ADD', pod: 0 },
  { verb: 'ADD', pod: 1 },
  { verb: 'DEL', pod: 2 },
];

describe('two ADDs and a DEL, interleaved at every effect, each failing or dying anywhere', () => {
  it('leave what the attachments that are left need, and nothing else', () => {
    const tally: Tally = { left: [], died: 0, failed: 0 };
    fc.assert(
      fc.property(networks(), courses(3), (networkOf, course) => {
        const host = plainHost();
        if (!isPossible(host, networkOf)) return;
        const run = runCourse(host, networkOf, TWO_ADDS_AND_A_DEL, course);
        count(tally, run, course);
        expectOrder(run.machine, host, networkOf);
        expectNothingLeft(run.machine, host);
      }),
      { numRuns: 150 },
    );
    expect(tally.left[0]).toBeGreaterThan(0);
    expect(tally.left[2]).toBeGreaterThan(10);
    expect(Math.min(tally.died, tally.failed)).toBeGreaterThan(10);
  });

  it('on the bridge of somebody else leave that to him as it was', () => {
    const tally: Tally = { left: [], died: 0, failed: 0 };
    fc.assert(
      fc.property(machineHosts(), networks(), courses(3), (any, networkOf, course) => {
        const isForeign =
          findLink(any, { netns: HOST_NETNS, ifname: 'cni0' as Ifname }) !== undefined;
        const host = usedBefore(any, networkOf[0] as RawConfig);
        if (!isForeign || !isPossible(host, networkOf)) return;
        const run = runCourse(host, networkOf, TWO_ADDS_AND_A_DEL, course);
        count(tally, run, course);
        expectOrder(run.machine, host, networkOf);
        expectNothingLeft(run.machine, host);
      }),
      { numRuns: 300 },
    );
    expect(tally.left[2]).toBeGreaterThan(3);
  });
});

describe('calls of one pod, interleaved at every effect, each failing or dying anywhere', () => {
  it.each([[['ADD', 'ADD']], [['ADD', 'DEL']], [['ADD', 'ADD', 'DEL', 'DEL']]] satisfies [
    Errand['verb'][],
  ][])('%j end in one attachment or none', (verbs) => {
    fc.assert(
      fc.property(networks(), courses(verbs.length), (networkOf, course) => {
        const host = plainHost();
        if (!isPossible(host, networkOf)) return;
        const errands = verbs.map((verb) => ({ verb, pod: 0 }));
        const { machine, calls } = runCourse(host, networkOf, errands, course);
        for (const call of calls) {
          const error = call.error();
          if (error === undefined) continue;
          expect(error).toMatchObject({
            message: expect.stringMatching(
              /is being added by process|already exists|^Cannot do|^Cannot read the links/,
            ),
          });
        }
        expectOrder(machine, host, networkOf);
        expectNothingLeft(machine, host);
      }),
      { numRuns: 60 },
    );
  });

  it('leave an attachment its record when DEL removes what died and ADD takes over', () => {
    const raw = { ...ONE_NETWORK, isGateway: true };
    const machine = makeMachine(plainHost());
    const lock: MachineLock = { holder: undefined };
    const request = requestFor('ADD', raw, 0);
    const adding = (): StepwiseCall =>
      makeStepwise(machine.start(), lock, (context) =>
        add(context, request, parseConfig(request.config)).finish(),
      );
    const died = adding();
    while (!machine.state.find(request.key)) died.step();
    died.kill();
    machine.living.delete(died.pid);
    const removing = makeStepwise(machine.start(), lock, (context) => del(context, request.key));
    // It has found the record, twice, and holds the lock.
    for (let i = 0; i < 3; i += 1) removing.step();
    expect(lock.holder).toBeDefined();
    const second = adding();
    while (machine.state.find(request.key)?.worker.pid !== second.pid) second.step();
    expect(second.step()).toBe('waits');
    runToEnd(removing);
    runToEnd(second);
    expect([removing.error(), second.error()]).toEqual([undefined, undefined]);
    expectOrder(machine, plainHost(), [raw]);
    expect(machine.state.find(request.key)?.state).toBe('finished');
    expectNothingLeft(machine, plainHost());
  });
});
