/** Whatever a runtime says, it gets a valid result or a valid error of the specification, and never anything else. */
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { add } from '../../plugin/call/add.ts';
import { checkCall } from '../../plugin/call/check.ts';
import { del } from '../../plugin/call/del.ts';
import { gc } from '../../plugin/call/gc.ts';
import { status } from '../../plugin/call/status.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import { CniError, formatError } from '../../plugin/cni/error.ts';
import { parsePlaces } from '../../plugin/cni/places.ts';
import { type Request, parseRequest } from '../../plugin/cni/request.ts';
import { formatResult, parseResult } from '../../plugin/cni/result.ts';
import { type AnyCall, anyCalls } from '../arbitraries/any-call.ts';
import { type Machine, PODS, makeMachine, plainHost } from './machine.ts';

vi.setConfig({ testTimeout: 600_000 });

const RUNS = 100_000;
/** A machine is used by so many calls, so that they meet what others left, and then begins anew. */
const CALLS_PER_MACHINE = 50;

/** What a call answers on standard output; throws what is no answer at all. */
function answer(machine: Machine, { environment, stdin }: AnyCall): string {
  const context = machine.start();
  let request: Request | undefined;
  try {
    request = parseRequest(environment, stdin);
    parsePlaces(request.config);
    switch (request.verb) {
      case 'ADD': {
        const added = add(context, request, parseConfig(request.config));
        const text = formatResult(added.result, request.cniVersion);
        added.finish();
        return text;
      }
      case 'DEL':
        del(context, request.key, request.config['prevResult']);
        return '';
      case 'CHECK':
        checkCall(context, request);
        return '';
      case 'GC':
        gc(context, request);
        return '';
      case 'STATUS':
        status(context, request, parseConfig(request.config));
        return '';
    }
  } catch (error) {
    if (!(error instanceof CniError)) throw error;
    return formatError(error, request?.cniVersion ?? '1.1.0');
  } finally {
    machine.living.delete(context.worker.pid);
  }
}

/** Codes that mean that the caller was wrong, or the host was not ready: never 999, a mistake of ours. */
const CODES = new Set([1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 100, 101, 102, 103]);

describe('any call', () => {
  it('is answered by a result or an error', () => {
    let machine = makeMachine(plainHost());
    let calls = 0;
    const answers = new Map<string, number>();
    fc.assert(
      fc.property(anyCalls(PODS), (call) => {
        if (calls++ % CALLS_PER_MACHINE === 0) {
          machine.state.close();
          machine = makeMachine(plainHost());
          // Another plugin says whatever it likes.
          machine.delegate = () => call.delegated;
        }
        const text = answer(machine, call);
        if (text === '') {
          answers.set('nothing', (answers.get('nothing') ?? 0) + 1);
          return;
        }
        const value = JSON.parse(text) as Record<string, unknown>;
        expect(value['cniVersion']).toMatch(/^[01]\.\d\.\d$/);
        if ('code' in value) {
          expect(CODES).toContain(value['code']);
          expect(value['msg']).toMatch(/\S/);
          answers.set(
            `error ${String(value['code'])}`,
            (answers.get(`error ${String(value['code'])}`) ?? 0) + 1,
          );
        } else {
          expect(() => parseResult(value, 'it')).not.toThrow();
          answers.set('result', (answers.get('result') ?? 0) + 1);
        }
      }),
      { numRuns: RUNS },
    );
    // Were all of them refused at the door, this would say little.
    for (const [kind, least] of [
      ['result', 2000],
      ['nothing', 5000],
      ['error 7', 1000],
      ['error 101', 100],
      ['error 1', 100],
      ['error 4', 100],
    ] as const)
      expect(answers.get(kind) ?? 0, `${kind} of ${JSON.stringify([...answers])}`).toBeGreaterThan(
        least,
      );
  });
});
