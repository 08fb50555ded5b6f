import type { Backend } from '../../backends/backend.ts';
import { HOST_NETNS, type NetnsName } from '../../model/host.ts';
import { formatFailure } from '../../model/message.ts';
import type { Op } from '../../model/op.ts';
import { placeOp } from '../../test/differential/place.ts';
import { afterOps } from '../../test/plugin/machine.ts';
import type { Figure } from './figure.ts';
import { NODE_OPS, podOps } from './pods.ts';
import { LONG_ROUNDS, type Sizes, type Step } from './sizes.ts';
import { timed } from './stopwatch.ts';

/** The kernel's part of a first round is cold too: modules, caches. */
const WARM_UP_ROUNDS = 1;

/** Why the kernel cannot be measured here; undefined when it can. */
export function missingForKernel(): string | undefined {
  if (process.platform !== 'linux') return 'needs Linux';
  return process.getuid?.() === 0 ? undefined : 'needs root, to make network namespaces';
}

/**
 * The same operations on the kernel of this machine, by netlink, and in the model, in turn. The node is a netns of its own
 * with a name that only this process has; it and its pods go in any case.
 */
export async function measureKernel(sizes: Sizes, step: Step): Promise<Figure[]> {
  const { makeLinuxBackend } = await import('../../backends/linux/linux.ts');
  const pods = sizes.kernelPods;
  const rounds = Math.min(sizes.rounds, LONG_ROUNDS);
  const [kernel, model]: [number[], number[]] = [[], []];
  for (let round = -WARM_UP_ROUNDS; round < rounds; round++) {
    const node = `cube-bench-${process.pid}-${round + WARM_UP_ROUNDS}`;
    const real = (name: NetnsName): NetnsName => (name === HOST_NETNS ? node : name);
    const lists = [NODE_OPS, ...podOps(node, pods)].map((ops) =>
      ops.map((op) => placeOp(op, { real, logical: real })),
    );
    const backend = makeLinuxBackend();
    try {
      let kernelMs = 0;
      for (const [index, ops] of lists.entries()) {
        await step(`the kernel: pods of round ${round + WARM_UP_ROUNDS + 1}`, index, lists.length);
        kernelMs += timed(() => execute(backend, ops)).ms;
      }
      const { ms } = timed(() => afterOps({ netns: {} }, lists.flat()));
      if (round < 0) continue;
      kernel.push(kernelMs);
      model.push(ms);
    } finally {
      removeNetns(backend, lists.flat());
      backend.close();
    }
  }
  const on = `${pods} pods`;
  return [
    { name: 'the kernel', on, unit: 'ms', values: kernel },
    { name: 'the model, of the same operations', on, unit: 'ms', values: model },
    {
      name: 'the kernel against the model',
      on,
      unit: 'times',
      values: kernel.map((ms, round) => ms / (model[round] ?? Number.NaN)),
    },
  ];
}

function execute(backend: Backend, ops: readonly Op[]): void {
  for (const op of ops) {
    const fault = backend.execute(op);
    if (fault) throw new Error(formatFailure(op, fault));
  }
}

/** Takes away every netns that the operations make, also those of which only the name is there yet. */
function removeNetns(backend: Backend, ops: readonly Op[]): void {
  for (const { op, netns } of ops)
    if (op === 'netns.add') backend.execute({ op: 'netns.del', netns });
}
