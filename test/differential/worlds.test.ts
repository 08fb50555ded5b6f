import { describe, expect, it } from 'vitest';
import type { NetnsScope } from '../../backends/backend.ts';
import { makeMemoryBackend } from '../../backends/memory.ts';
import { canonicalJson } from '../../model/canonical.ts';
import { desiredOf } from '../../model/desired.ts';
import type { Host } from '../../model/host.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { planTo } from '../../model/plan.ts';
import { isReachable } from '../model/reachable.ts';
import { plainState } from '../state.ts';
import { WORLDS, type World, hostOf } from './worlds.ts';

const KERNEL = { bridgeVlans: true };
const LENGTH = 3;

interface State {
  readonly host: Host;
  /** A program that leads there. */
  readonly ops: readonly Op[];
}

/** Makes sure that whoever changes what it is given throws. */
function freeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const part of Object.values(value)) freeze(part);
  }
  return value;
}

/**
 * Every host that programs of up to three operations lead to, by its text. The model answers by the host alone, so that
 * each is gone on from once, whichever of many programs led there.
 */
function statesOf(world: World): readonly State[] {
  const first: State = { host: freeze(hostOf(world, KERNEL)), ops: [] };
  const states = new Map([[canonicalJson(first.host), first]]);
  let level = [first];
  for (let length = 1; length <= LENGTH; length += 1) {
    const next: State[] = [];
    for (const { host, ops } of level) {
      for (const op of world.alphabet) {
        const outcome = applyOp(host, op);
        if (!outcome.ok) continue;
        const text = canonicalJson(outcome.host);
        if (states.has(text)) continue;
        const state: State = { host: freeze(outcome.host), ops: [...ops, op] };
        states.set(text, state);
        next.push(state);
      }
    }
    level = next;
  }
  return [...states.values()];
}

function scopeOf({ netns }: Host): Record<string, NetnsScope> {
  return Object.fromEntries(
    Object.entries(netns).map(([name, { sysctls }]) => [
      name,
      {
        links: 'all',
        policyRules: true,
        routes: 'all',
        sysctls: Object.keys(sysctls),
        nftables: 'all',
        vlans: true,
        fdb: true,
        trafficControl: true,
      },
    ]),
  );
}

/**
 * Can a plan be asked for it? Not for what it never touches: addresses that a link kept when it went down, a redirection to
 * a link that is gone, the settings of a netns that was made anew.
 */
function isPlannable({ netns }: Host): boolean {
  return Object.values(netns).every(
    ({ links, sysctls }) =>
      Object.keys(sysctls).length > 0 &&
      !Object.entries(sysctls).some(
        ([key, on]) => key.endsWith('keep_addr_on_down') && on !== '0',
      ) &&
      !Object.values(links).some((link) => link.trafficControl?.ingress?.redirect === null),
  );
}

/** Where a plan leads, or why there is none. */
function planned(from: Host, to: Host): unknown {
  const absent = Object.keys(from.netns).filter((name) => !Object.hasOwn(to.netns, name));
  const wish = {
    ...Object.fromEntries(absent.map((name) => [name, 'absent' as const])),
    ...desiredOf(to),
  };
  const planning = planTo(from, wish);
  return planning.ok
    ? plainState(planning.plan.after)
    : `${planning.op.op} ${planning.fault.errno}`;
}

describe.each(WORLDS.map((world) => [world.name, world] as const))(
  'all of %s',
  { timeout: 60_000 },
  (_name, world) => {
    const states = statesOf(world);

    it('answers every operation alike each time, and changes nothing that it is given', () => {
      for (const { host, ops } of states) {
        for (const op of world.alphabet) {
          const backend = makeMemoryBackend(host);
          const outcome = applyOp(host, op);
          const errno = backend.execute(op)?.errno;
          const expected = outcome.ok ? undefined : outcome.fault.errno;
          expect({ ops, op, errno }).toEqual({ ops, op, errno: expected });
          if (!outcome.ok) expect(backend.host()).toBe(host);
        }
      }
    });

    it('is observed as it is', () => {
      for (const { host, ops } of states) {
        const { netns } = makeMemoryBackend(host).observe(scopeOf(host));
        expect({ ops, state: plainState({ netns }) }).toEqual({ ops, state: plainState(host) });
      }
    });

    it('is where plans lead to, and away from', () => {
      const [first] = states;
      for (const { host, ops } of states) {
        if (!first || !isReachable(host) || !isPlannable(host)) continue;
        expect({ ops, state: planned(first.host, host) }).toEqual({ ops, state: plainState(host) });
        const back = planned(host, first.host);
        expect({ ops, state: back }).toEqual({ ops, state: plainState(first.host) });
      }
    });
  },
);
