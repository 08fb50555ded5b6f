import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import type { Backend } from '../../backends/backend.ts';
import { makeAddress } from '../../model/address.ts';
import type { Fault } from '../../model/errno.ts';
import { HOST_NETNS, type Host, getLink, getNetns, withNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { ipBits, ipFromBits } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import type { Rule, Table } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { describeOp } from '../../model/ops.ts';
import { parsePrefix, parsePrefixedIp } from '../../model/prefix.ts';
import { makeRoute } from '../../model/route.ts';
import { add } from '../../plugin/call/add.ts';
import { findings } from '../../plugin/call/check.ts';
import type { CallContext } from '../../plugin/call/context.ts';
import { del } from '../../plugin/call/del.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import { CniError } from '../../plugin/cni/error.ts';
import { type RawConfig, configurations } from '../arbitraries/configuration.ts';
import { machineHosts } from '../arbitraries/machine.ts';
import { plainState } from '../state.ts';
import { usedBefore, withoutForwarding } from './lasting.ts';
import {
  type Machine,
  afterOps,
  attachPod,
  makeMachine,
  plainHost,
  requestFor,
  stateOf,
} from './machine.ts';
import { type Effect, type Mishap, type StepwiseCall, makeStepwise, runToEnd } from './stepwise.ts';

// Each run plans and applies several calls.
vi.setConfig({ testTimeout: 60_000 });

const FAULT: Fault = { errno: 'ENOBUFS', text: 'injected' };

/** What goes wrong, by the index of the operation or of the look at the kernel. */
interface Faults {
  /** `refused`: nothing was done; `half`: it was done, and the kernel says that it was not. */
  readonly execute?: (index: number) => 'refused' | 'half' | undefined;
  readonly observe?: (index: number) => boolean;
}

/** A table of somebody else's whose chain for what is forwarded has these rules. */
function foreignTable(name: string, rules: readonly Rule[]): Table {
  const hook = { type: 'filter', hook: 'forward', priority: 0, policy: 'drop' } as const;
  return { family: 'inet', name, chains: { fwd: { name: 'fwd', hook, rules } }, sets: {} };
}

function withTables(host: Host, ...tables: readonly Table[]): Host {
  const netns = getNetns(host, HOST_NETNS);
  const named = tables.map((each) => [`inet ${each.name}`, each] as const);
  const nftables = { ...netns.nftables, ...Object.fromEntries(named) };
  return withNetns(host, HOST_NETNS, { ...netns, nftables });
}

function withFaults(
  backend: Backend,
  faults: Faults,
): Backend & { readonly executed: () => number } {
  let executed = 0;
  let observed = 0;
  return {
    executed: () => executed,
    observe: (scope) => {
      const fails = faults.observe?.(observed) ?? false;
      observed += 1;
      if (fails) throw new Error('Cannot read the links in netns "host": ENOBUFS');
      return backend.observe(scope);
    },
    execute: (op) => {
      const wrong = faults.execute?.(executed);
      executed += 1;
      if (wrong === undefined) return backend.execute(op);
      if (wrong === 'half') backend.execute(op);
      return FAULT;
    },
    lacks: (extra) => backend.lacks(extra),
    close: () => undefined,
  };
}

function addIn(context: CallContext, raw: RawConfig, pod = 0): void {
  const request = requestFor('ADD', raw, pod);
  add(context, request, parseConfig(request.config)).finish();
}

function delIn(context: CallContext, raw: RawConfig, pod = 0): void {
  del(context, requestFor('DEL', raw, pod).key);
}

/** An operation as messages name it. */
function commandOf(op: Op): string {
  const [first, ...others] = describeOp(op);
  return others.length === 0 ? `${first}` : `${first} (and ${others.length} more)`;
}

/** What a call throws, or undefined. */
function thrown(call: () => void): unknown {
  try {
    call();
    return undefined;
  } catch (error) {
    return error;
  }
}

/**
 * Does somebody else's bridge have routes that ADD does not look at? With its last IPv4 address a link loses its
 * IPv4 routes (K-3.5), so those would go with a gateway that was its only address.
 */
function hasUnreadRoutes(host: Host, raw: RawConfig): boolean {
  const routes = host.netns[HOST_NETNS]?.routes ?? [];
  return (
    raw['forceAddress'] !== true &&
    routes.some((r) => r.device === raw['bridge'] && r.protocol !== 2)
  );
}

/** Machines on which ADD works, the number of its operations, and where it shall fail. */
function machines(
  addresses: 'of others may go' | 'of others stay' = 'of others stay',
): fc.Arbitrary<{ make: () => Machine; raw: RawConfig; count: number }> {
  return fc
    .record({
      host: fc.oneof(fc.constant(plainHost()), machineHosts()),
      raw: configurations(),
      another: fc.boolean(),
    })
    .map(({ host: any, raw: given, another }) => {
      const raw = addresses === 'of others stay' ? { ...given, forceAddress: false } : given;
      const host = usedBefore(any, raw);
      const make = (): Machine => {
        const machine = makeMachine(host);
        if (another) attachPod(machine, raw, 1);
        return machine;
      };
      try {
        const machine = make();
        return { make, raw, host, count: attachPod(machine, raw, 0).plan.ops.length };
      } catch {
        return { make, raw, host, count: 0 };
      }
    })
    .filter(({ count, host, raw }) => count > 0 && !hasUnreadRoutes(host, raw));
}

const KINDS = fc.constantFrom('refused' as const, 'half' as const);

describe('an ADD of which one operation fails', () => {
  it('leaves everything as it was, and says what failed', () => {
    fc.assert(
      fc.property(
        machines('of others may go'),
        fc.nat(),
        KINDS,
        ({ make, raw, count }, which, kind) => {
          const machine = make();
          const host = plainState(machine.backend.host());
          const state = stateOf(machine);
          const at = which % count;
          const backend = withFaults(machine.backend, {
            execute: (index) => (index === at ? kind : undefined),
          });
          const context = { ...machine.start(), backend };
          const error = thrown(() => addIn(context, raw));
          expect(error).toMatchObject({
            name: 'CniError',
            code: 100,
            details: 'everything was undone',
          });
          expect((error as CniError).message).toMatch(
            /^Cannot do ".*" in netns "[^"]+": ENOBUFS, "injected"$/,
          );
          expect(plainState(machine.backend.host())).toEqual(host);
          expect(stateOf(machine)).toEqual(state);
          // Nothing is in the way of the next one.
          addIn(machine.start(), raw);
          expect(findings(machine.start(), requestFor('CHECK', raw, 0).key)).toEqual([]);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('leaves everything as it was when the kernel cannot be spoken to for a moment', () => {
    fc.assert(
      fc.property(machines(), fc.nat(), ({ make, raw, count }, which) => {
        const machine = make();
        const host = machine.backend.host();
        const state = stateOf(machine);
        let executed = 0;
        const backend: Backend = {
          ...machine.backend,
          execute: (op) => {
            if (executed++ === which % count) throw new Error('the socket is gone');
            return machine.backend.execute(op);
          },
        };
        const error = thrown(() => addIn({ ...machine.start(), backend }, raw));
        expect(error).toMatchObject({ message: 'the socket is gone' });
        expect(withoutForwarding(machine.backend.host())).toEqual(withoutForwarding(host));
        expect(stateOf(machine)).toEqual(state);
      }),
      { numRuns: 50 },
    );
  });

  it('undoes nothing that others do to their tables meanwhile', () => {
    const reject: Rule = { statements: [{ kind: 'opaque', expression: 'reject' }], comment: '' };
    const raw = {
      cniVersion: '1.1.0',
      name: 'net',
      type: 'cube-cni',
      isGateway: true,
      adoptForward: true,
      ipam: { type: 'cube-ipam', subnet: '10.9.0.0/24' },
    };
    const start = withTables(plainHost(), foreignTable('site', [reject]));
    const counted = withFaults(makeMachine(start).backend, {});
    addIn({ ...makeMachine(start).start(), backend: counted }, raw);
    const count = counted.executed();
    expect(count).toBeGreaterThan(5);
    for (let at = 0; at <= count; at += 1) {
      const machine = makeMachine(start);
      let executed = 0;
      let failed = false;
      const backend: Backend = {
        ...machine.backend,
        execute: (op) => {
          if (executed++ !== at) return machine.backend.execute(op);
          failed = true;
          // Another rule in front, and a whole table beside it.
          const host = machine.backend.host();
          const { rules = [] } =
            getNetns(host, HOST_NETNS).nftables['inet site']?.chains['fwd'] ?? {};
          machine.backend.replace(
            withTables(
              host,
              foreignTable('site', [reject, ...rules]),
              foreignTable('late', [reject]),
            ),
          );
          return FAULT;
        },
      };
      const call = (): void => addIn({ ...machine.start(), backend }, raw);
      if (at >= count) {
        call();
        expect(failed).toBe(false);
        break;
      }
      expect(thrown(call)).toBeInstanceOf(CniError);
      const { nftables } = getNetns(machine.backend.host(), HOST_NETNS);
      expect(nftables, `operation ${at} failed`).toEqual({
        'inet site': foreignTable('site', [reject, reject]),
        'inet late': foreignTable('late', [reject]),
      });
      expect(machine.state.list()).toEqual([]);
    }
  });

  it.each(['10.9.9.1/24', '10.244.1.1/16'])(
    'gives somebody else back %s, and his routes',
    (text) => {
      const ref = { netns: HOST_NETNS, ifname: 'cni0' as Ifname };
      const end = { ifname: ref.ifname, mac: parseMac('02:00:00:00:0b:01'), mtuBytes: 1500 };
      const address = makeAddress(parsePrefixedIp(text));
      const route = makeRoute({
        destination: parsePrefix('10.77.0.0/16'),
        device: ref.ifname,
        gateway: ipFromBits(4, ipBits(address.ip) + 1n),
      });
      const host = afterOps(plainHost(), [
        { op: 'link.add', netns: HOST_NETNS, link: { kind: 'bridge', ...end, up: true } },
        { op: 'address.add', ...ref, address },
        { op: 'route.add', netns: HOST_NETNS, route },
      ]);
      const raw = {
        cniVersion: '1.0.0',
        name: 'net',
        isGateway: true,
        forceAddress: true,
        ipam: { type: 'cube-ipam', subnet: '10.244.1.0/24' },
      };
      const count = attachPod(makeMachine(host), raw, 0).plan.ops.length;
      for (let at = 0; at < count; at += 1) {
        const machine = makeMachine(host);
        const execute = (index: number): 'refused' | undefined =>
          index === at ? 'refused' : undefined;
        const backend = withFaults(machine.backend, { execute });
        const error = thrown(() => addIn({ ...machine.start(), backend }, raw));
        expect(error).toMatchObject({ code: 100 });
        expect(plainState(machine.backend.host())).toEqual(plainState(host));
      }
    },
  );

  it('leaves the bridge to follow its ports, as it did', () => {
    const raw = {
      cniVersion: '1.0.0',
      name: 'net',
      mtu: 1400,
      ipam: { type: 'cube-ipam', subnet: '10.244.1.0/24' },
    };
    const ref = { netns: HOST_NETNS, ifname: 'cni0' as Ifname };
    for (const mtu of [1300, 9000]) {
      for (let at = 0; at < 4; at += 1) {
        const machine = makeMachine(plainHost());
        attachPod(machine, raw, 1);
        const bridge = getLink(machine.backend.host(), ref);
        expect(bridge).toMatchObject({ mtuBytes: 1400, mtuChosen: false });
        const execute = (index: number): 'refused' | undefined =>
          index === at ? 'refused' : undefined;
        const backend = withFaults(machine.backend, { execute });
        const error = thrown(() => addIn({ ...machine.start(), backend }, { ...raw, mtu }));
        expect(error).toMatchObject({ code: 100 });
        expect(getLink(machine.backend.host(), ref)).toEqual(bridge);
      }
    }
  });

  it('names the operation, where it was and why, in the words of the kernel', () => {
    const raw = {
      cniVersion: '1.0.0',
      name: 'net',
      ipam: { type: 'cube-ipam', subnet: '10.244.1.0/24' },
    };
    const { plan } = attachPod(makeMachine(plainHost()), raw, 0);
    for (const [at, op] of plan.ops.entries()) {
      const machine = makeMachine(plainHost());
      const backend = withFaults(machine.backend, {
        execute: (i) => (i === at ? 'refused' : undefined),
      });
      const error = thrown(() => addIn({ ...machine.start(), backend }, raw));
      expect((error as CniError).message).toBe(
        `Cannot do "${commandOf(op)}" in netns "${op.netns}": ENOBUFS, "injected"`,
      );
      expect(machine.log).toContain(`error ${describeOp(op).join('; ')}: ENOBUFS injected`);
    }
  });

  it('and then one of its undoing, leaves nothing behind or a record for DEL', () => {
    let kept = 0;
    fc.assert(
      fc.property(
        machines(),
        fc.nat(),
        fc.integer({ min: 1, max: 12 }),
        KINDS,
        ({ make, raw, count }, which, later, kind) => {
          const machine = make();
          const host = machine.backend.host();
          const state = stateOf(machine);
          const at = which % count;
          // Every operation from the second fault on fails, so that DEL's retries do not help either.
          const backend = withFaults(machine.backend, {
            execute: (index) => (index === at ? kind : index >= at + later ? 'refused' : undefined),
          });
          const error = thrown(() => addIn({ ...machine.start(), backend }, raw));
          expect(error).toMatchObject({ name: 'CniError', code: 100 });
          const key = requestFor('DEL', raw, 0).key;
          if (machine.state.find(key)) {
            kept += 1;
            expect(error).toMatchObject({ details: 'not everything could be undone: DEL will' });
            expect(machine.state.find(key)?.state).toBe('pending');
            machine.living.clear();
            delIn(machine.start(), raw);
          }
          expect(withoutForwarding(machine.backend.host())).toEqual(withoutForwarding(host));
          expect(stateOf(machine)).toEqual(state);
        },
      ),
      { numRuns: 60 },
    );
    expect(kept).toBeGreaterThan(5);
  });
});

describe('a kernel that cannot be read', () => {
  it('fails ADD, which leaves nothing', () => {
    fc.assert(
      fc.property(machines(), fc.nat(3), ({ make, raw }, at) => {
        const machine = make();
        const host = machine.backend.host();
        const state = stateOf(machine);
        const backend = withFaults(machine.backend, { observe: (index) => index === at });
        const error = thrown(() => addIn({ ...machine.start(), backend }, raw));
        if (error === undefined) return;
        expect(error).toMatchObject({
          message: 'Cannot read the links in netns "host": ENOBUFS',
        });
        expect(withoutForwarding(machine.backend.host())).toEqual(withoutForwarding(host));
        expect(stateOf(machine)).toEqual(state);
      }),
    );
  });

  it('when ADD has to be undone, is undone from memory', () => {
    fc.assert(
      fc.property(machines(), fc.nat(), ({ make, raw, count }, which) => {
        const machine = make();
        const host = plainState(machine.backend.host());
        const state = stateOf(machine);
        let failed = false;
        const backend = withFaults(machine.backend, {
          execute: (index) => {
            if (index !== which % count) return undefined;
            failed = true;
            return 'refused';
          },
          // The look for the way back, and no other.
          observe: () => {
            const fails = failed;
            failed = false;
            return fails;
          },
        });
        const error = thrown(() => addIn({ ...machine.start(), backend }, raw));
        expect(error).toMatchObject({ code: 100, details: 'everything was undone' });
        expect(plainState(machine.backend.host())).toEqual(host);
        expect(stateOf(machine)).toEqual(state);
      }),
      { numRuns: 50 },
    );
  });
});

describe('a DEL of which operations fail', () => {
  it('tries again, and gets there', () => {
    fc.assert(
      fc.property(machines(), fc.nat(6), KINDS, ({ make, raw }, at, kind) => {
        const machine = make();
        const host = machine.backend.host();
        const state = stateOf(machine);
        addIn(machine.start(), raw);
        const backend = withFaults(machine.backend, {
          execute: (index) => (index === at ? kind : undefined),
        });
        delIn({ ...machine.start(), backend }, raw);
        expect(withoutForwarding(machine.backend.host())).toEqual(withoutForwarding(host));
        expect(stateOf(machine)).toEqual(state);
      }),
      { numRuns: 50 },
    );
  });

  it('again and again, keeps its record until a later one succeeds', () => {
    fc.assert(
      fc.property(machines(), fc.nat(3), KINDS, fc.boolean(), ({ make, raw }, at, kind, blind) => {
        const machine = make();
        const host = machine.backend.host();
        const state = stateOf(machine);
        addIn(machine.start(), raw);
        const records = machine.state.list();
        const backend = withFaults(machine.backend, {
          execute: (index) => (index >= at ? kind : undefined),
          observe: () => blind,
        });
        const error = thrown(() => delIn({ ...machine.start(), backend }, raw));
        if (error !== undefined) {
          expect(machine.state.list()).toEqual(records);
          if (!blind)
            expect(error).toMatchObject({ code: 100, details: 'DEL may be called again' });
          delIn(machine.start(), raw);
        }
        expect(withoutForwarding(machine.backend.host())).toEqual(withoutForwarding(host));
        expect(stateOf(machine)).toEqual(state);
      }),
      { numRuns: 50 },
    );
  });
});

/** ADD in a process of its own that stops after `count` effects; the process is killed if it has not ended by then. */
function startAdd(
  machine: Machine,
  raw: RawConfig,
  mishap?: (effect: Effect, index: number) => Mishap,
): StepwiseCall {
  return makeStepwise(
    machine.start(),
    { holder: undefined },
    (context) => addIn(context, raw),
    mishap,
  );
}

function startDel(machine: Machine, raw: RawConfig): StepwiseCall {
  return makeStepwise(machine.start(), { holder: undefined }, (context) => delIn(context, raw));
}

/** Lets a call have some effects, and answers whether it has ended. */
function stepTimes(call: StepwiseCall, count: number): boolean {
  for (let i = 0; i < count; i += 1) if (call.step() === 'ended') return true;
  return false;
}

/** How many effects a call has when nobody interferes. */
function effectsOf(make: () => StepwiseCall): number {
  const call = make();
  runToEnd(call);
  return call.effects();
}

describe('a process that is killed', () => {
  it('comes as far as it came: step by step a call does what it does at once', () => {
    fc.assert(
      fc.property(machines(), ({ make, raw }) => {
        const [stepped, atOnce] = [make(), make()];
        runToEnd(startAdd(stepped, raw));
        attachPod(atOnce, raw, 0);
        expect(stepped.backend.host()).toEqual(atOnce.backend.host());
        expect(stateOf(stepped)).toMatchObject({
          taken: (stateOf(atOnce) as { taken: unknown }).taken,
        });
      }),
      { numRuns: 30 },
    );
  });

  it('in ADD, leaves what another ADD finishes, with the same addresses', () => {
    fc.assert(
      fc.property(machines(), fc.nat(), ({ make, raw }, which) => {
        const machine = make();
        const call = startAdd(machine, raw);
        stepTimes(call, which % effectsOf(() => startAdd(make(), raw)));
        call.kill();
        machine.living.delete(call.pid);
        const { key } = requestFor('ADD', raw, 0);
        const begun = machine.state.find(key);
        expect(begun?.state).not.toBe('finished');
        addIn(machine.start(), raw);
        const record = machine.state.find(key);
        expect(record?.state).toBe('finished');
        if (begun) expect(record?.attachment.addresses).toEqual(begun.attachment.addresses);
        expect(findings(machine.start(), key)).toEqual([]);
        const whole = make();
        attachPod(whole, raw, 0);
        expect(plainState(machine.backend.host())).toEqual(plainState(whole.backend.host()));
      }),
      { numRuns: 50 },
    );
  });

  it('in ADD, leaves what DEL removes', () => {
    fc.assert(
      fc.property(machines(), fc.nat(), ({ make, raw }, which) => {
        const machine = make();
        const host = machine.backend.host();
        const state = stateOf(machine);
        const call = startAdd(machine, raw);
        stepTimes(call, which % (effectsOf(() => startAdd(make(), raw)) + 1));
        call.kill();
        machine.living.delete(call.pid);
        delIn(machine.start(), raw);
        expect(withoutForwarding(machine.backend.host())).toEqual(withoutForwarding(host));
        expect(stateOf(machine)).toEqual(state);
      }),
      { numRuns: 50 },
    );
  });

  it('while it undoes a failed ADD, leaves what DEL removes', () => {
    fc.assert(
      fc.property(
        machines(),
        fc.nat(),
        fc.nat(),
        KINDS,
        ({ make, raw, count }, which, at, kind) => {
          const machine = make();
          const host = machine.backend.host();
          const state = stateOf(machine);
          let seen = 0;
          const failing = (effect: Effect): Mishap =>
            effect.kind === 'execute' && seen++ === at % count ? kind : undefined;
          const call = startAdd(machine, raw, failing);
          stepTimes(call, which % 60);
          call.kill();
          machine.living.delete(call.pid);
          delIn(machine.start(), raw);
          expect(withoutForwarding(machine.backend.host())).toEqual(withoutForwarding(host));
          expect(stateOf(machine)).toEqual(state);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('in ADD, leaves nothing that an ADD with another configuration and then DEL do not remove', () => {
    fc.assert(
      fc.property(
        configurations(),
        configurations(),
        fc.nat(),
        fc.nat(),
        (raw, other, which, later) => {
          const machine = makeMachine(plainHost());
          const call = startAdd(machine, raw);
          stepTimes(call, which % (effectsOf(() => startAdd(makeMachine(plainHost()), raw)) + 1));
          call.kill();
          machine.living.delete(call.pid);
          const finished = machine.state.list().some((record) => record.state === 'finished');
          // The second may die too, anywhere.
          const second = startAdd(machine, other);
          const ended = stepTimes(second, later % 120);
          second.kill();
          machine.living.delete(second.pid);
          if (ended && !finished) {
            expect(second.error()).toBeUndefined();
            const { key } = requestFor('ADD', other, 0);
            expect(findings(machine.start(), key)).toEqual([]);
          }
          delIn(machine.start(), other);
          expect(withoutForwarding(machine.backend.host())).toEqual(withoutForwarding(plainHost()));
          expect(machine.state.list()).toEqual([]);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('in DEL, leaves what another DEL removes', () => {
    fc.assert(
      fc.property(machines(), fc.nat(), ({ make, raw }, which) => {
        const machine = make();
        const host = machine.backend.host();
        const state = stateOf(machine);
        addIn(machine.start(), raw);
        const call = startDel(machine, raw);
        stepTimes(call, which % 20);
        call.kill();
        machine.living.delete(call.pid);
        delIn(machine.start(), raw);
        expect(withoutForwarding(machine.backend.host())).toEqual(withoutForwarding(host));
        expect(stateOf(machine)).toEqual(state);
      }),
      { numRuns: 50 },
    );
  });
});

describe('a process that is still at work', () => {
  it('on an ADD, lets no other call near it', () => {
    fc.assert(
      fc.property(machines(), fc.nat(), ({ make, raw }, which) => {
        const machine = make();
        const call = startAdd(machine, raw);
        // Not beyond the last effect, with which it is finished.
        stepTimes(call, 1 + (which % (effectsOf(() => startAdd(make(), raw)) - 2)));
        const { key } = requestFor('ADD', raw, 0);
        if (machine.state.find(key)?.state !== 'pending') return;
        const host = machine.backend.host();
        const state = stateOf(machine);
        for (const other of [addIn, delIn])
          expect(thrown(() => other(machine.start(), raw))).toMatchObject({
            code: 11,
            message: `attachment net/c0/eth0 is being added by process ${call.pid}`,
          });
        expect(machine.backend.host()).toBe(host);
        expect(stateOf(machine)).toEqual(state);
        runToEnd(call);
        expect(findings(machine.start(), key)).toEqual([]);
      }),
      { numRuns: 100 },
    );
  });

  it('for too long, fails an ADD that waits for it, which leaves no address', () => {
    fc.assert(
      fc.property(machines(), ({ make, raw }) => {
        const machine = make();
        const host = machine.backend.host();
        const state = stateOf(machine);
        const call = startAdd(machine, raw, ({ kind }) =>
          kind === 'lock' ? 'refused' : undefined,
        );
        runToEnd(call);
        expect(call.error()).toMatchObject({ code: 11, message: 'other calls hold the lock' });
        expect(machine.backend.host()).toBe(host);
        expect(stateOf(machine)).toEqual(state);
      }),
      { numRuns: 30 },
    );
  });
});

describe('a result that nobody took', () => {
  it('is cancelled, and nothing is left', () => {
    fc.assert(
      fc.property(machines(), ({ make, raw }) => {
        const machine = make();
        const host = machine.backend.host();
        const state = stateOf(machine);
        const request = requestFor('ADD', raw, 0);
        add(machine.start(), request, parseConfig(request.config)).cancel();
        expect(withoutForwarding(machine.backend.host())).toEqual(withoutForwarding(host));
        expect(stateOf(machine)).toEqual(state);
      }),
    );
  });
});
