import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalJson } from '../../model/canonical.ts';
import { desiredOf } from '../../model/desired.ts';
import { diff } from '../../model/diff.ts';
import type { Host } from '../../model/host.ts';
import { invertOp } from '../../model/invert.ts';
import type { EffectOp, Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { planTo, withEffects } from '../../model/plan.ts';
import { addressAnnounce, conntrackFlush } from '../arbitraries/address-op.ts';
import { type OpSeed, drawFrom } from '../arbitraries/draw.ts';
import { hosts, UNIVERSE } from '../arbitraries/host.ts';
import { PLANNABLE, opSeeds, programs, resolveOp, runProgram } from '../arbitraries/program.ts';
import { plainState } from '../state.ts';
import { isReachable } from './reachable.ts';

/** The host after operations none of which may fail. */
function applyAll(host: Host, ops: readonly Op[]): Host {
  return ops.reduce((state, op) => {
    const outcome = applyOp(state, op);
    if (!outcome.ok) throw new Error(`${JSON.stringify(op)}: ${outcome.fault.errno}`);
    return outcome.host;
  }, host);
}

function targets(): fc.Arbitrary<Host> {
  return hosts().filter(isReachable);
}

function targetPrograms(): fc.Arbitrary<OpSeed[]> {
  return programs(25).filter((seeds) => isReachable(runProgram(UNIVERSE, seeds, PLANNABLE).host));
}

function planBetween(from: Host, to: Host): readonly Op[] {
  const planning = planTo(from, desiredOf(to));
  if (!planning.ok)
    throw new Error(
      `${JSON.stringify(planning.op)}: ${planning.fault.errno} ${planning.fault.text}`,
    );
  return planning.plan.ops;
}

/** Two effects on a host: one that is always possible, and one that may not be. */
function effectsFor(host: Host, seed: OpSeed): EffectOp[] {
  const draw = drawFrom(seed, 'plannable');
  const netns = draw.of(Object.keys(host.netns));
  return [addressAnnounce(netns, host, draw), conntrackFlush(netns, draw)];
}

describe('laws of the model', () => {
  it('finds no difference between a host and itself', () => {
    fc.assert(
      fc.property(hosts(), (host) => {
        expect(diff(host, desiredOf(host))).toEqual([]);
      }),
    );
  });

  it('applies the difference between two hosts to the first and gets the second', () => {
    fc.assert(
      fc.property(hosts(), targets(), (from, to) => {
        const after = applyAll(from, planBetween(from, to));
        expect(plainState(after)).toEqual(plainState(to));
      }),
    );
  });

  it('restores a host by the inverse of any operation', () => {
    fc.assert(
      fc.property(targetPrograms(), opSeeds(), (seeds, seed) => {
        const { host } = runProgram(UNIVERSE, seeds, PLANNABLE);
        const op = resolveOp(host, UNIVERSE, seed, PLANNABLE);
        const outcome = applyOp(host, op);
        const back = applyAll(outcome.ok ? outcome.host : host, invertOp(host, op));
        expect(plainState(back)).toEqual(plainState(host));
      }),
      { numRuns: 300 },
    );
  });

  it('leaves the host as it is by an effect, which has nothing to undo', () => {
    fc.assert(
      fc.property(hosts(), opSeeds(), (host, seed) => {
        for (const op of effectsFor(host, seed)) {
          const outcome = applyOp(host, op);
          expect(outcome.ok ? outcome.host : host).toBe(host);
          expect(invertOp(host, op)).toEqual([]);
        }
      }),
    );
  });

  it('appends effects to a plan that leads where they are possible, and refuses others', () => {
    fc.assert(
      fc.property(hosts(), targets(), opSeeds(), (from, to, seed) => {
        const planning = planTo(from, desiredOf(to));
        if (!planning.ok) throw new Error(planning.op.op);
        const { plan } = planning;
        const effects = effectsFor(to, seed);
        const possible = effects.filter((op) => applyOp(to, op).ok);
        const all = withEffects(plan, effects);
        expect(all.ok).toBe(possible.length === effects.length);
        const extended = withEffects(plan, possible);
        if (!extended.ok) throw new Error(extended.op.op);
        expect(extended.plan).toMatchObject({ before: plan.before, after: plan.after });
        const { ops } = extended.plan;
        expect(ops.slice(0, plan.ops.length)).toEqual(plan.ops);
        // What draws traffic comes last.
        expect(ops.slice(plan.ops.length)).toEqual(possible.toReversed());
      }),
    );
  });

  it('arrives from wherever a plan was stopped', () => {
    fc.assert(
      fc.property(hosts(15), targets(), fc.nat(), (from, to, at) => {
        const ops = planBetween(from, to);
        const stopped = applyAll(from, ops.slice(0, at % (ops.length + 1)));
        expect(plainState(applyAll(stopped, planBetween(stopped, to)))).toEqual(plainState(to));
      }),
    );
  });

  it('plans nothing once it has arrived', () => {
    fc.assert(
      fc.property(hosts(), targets(), (from, to) => {
        expect(planBetween(applyAll(from, planBetween(from, to)), to)).toEqual([]);
      }),
    );
  });

  it('applies operations without touching the host they are applied to, and always alike', () => {
    fc.assert(
      fc.property(programs(25), (seeds) => {
        const first = runProgram(UNIVERSE, seeds, PLANNABLE);
        const text = canonicalJson(first.host);
        const second = runProgram(UNIVERSE, seeds, PLANNABLE);
        expect(canonicalJson(second.host)).toBe(text);
        expect(second.ops).toEqual(first.ops);
      }),
    );
  });
});
