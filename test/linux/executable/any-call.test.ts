/** A thousand calls of any kind to the built executable: JSON or nothing on standard output, nothing on standard error. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { anyCalls } from '../../arbitraries/any-call.ts';
import { requirement } from '../../requirements.ts';
import { makeNode } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

const CALLS = 1000;

describe.skipIf(skip)('the executable', () => {
  test('answers any call', { timeout: 240_000 }, () => {
    const node = makeNode();
    const pods = [node.addPod(), node.addPod(), node.addPod()];
    const seed = Date.now() | 0;
    const kinds = { nothing: 0, result: 0, error: 0 };
    for (const { environment, stdin } of fc.sample(anyCalls(pods), { numRuns: CALLS, seed })) {
      const { CNI_COMMAND: verb = '', ...env } = environment;
      // Without a command it is the command line, which says what it is.
      if (verb === '' || Object.values(env).some((value) => value.includes('\0'))) continue;
      const said = `${JSON.stringify(environment)} ${stdin}`;
      // State and log are where the test looks after them, unless the configuration is none.
      const config = ((): string => {
        try {
          const value: unknown = JSON.parse(stdin);
          if (value === null || typeof value !== 'object' || Array.isArray(value)) return stdin;
          return JSON.stringify({ ...value, dataDir: node.dataDir, logFile: node.logFile });
        } catch {
          return stdin;
        }
      })();
      const { status, stdout, stderr } = node.call(verb, { env, stdin: config });
      expect(stderr, said).toBe('');
      if (status === 0 && stdout === '') {
        kinds.nothing += 1;
        continue;
      }
      const value = JSON.parse(stdout) as Record<string, unknown>;
      if (status === 0) {
        expect(value, said).toHaveProperty('cniVersion');
        kinds.result += 1;
      } else {
        expect(status, said).toBe(1);
        expect(value, said).toMatchObject({ code: expect.any(Number), msg: expect.any(String) });
        expect(value['code'], `seed ${seed}: ${said}: ${stdout}`).not.toBe(999);
        kinds.error += 1;
      }
    }
    for (const count of Object.values(kinds))
      expect(count, JSON.stringify(kinds)).toBeGreaterThan(20);
  });
});
