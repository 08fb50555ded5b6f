import { statSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release } from 'node:os';
import type { Bench } from './bench.ts';

/** What any figure depends on; the load is that of the last minute. */
export function describeComputer() {
  return {
    kernel: release(),
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    loadBefore: loadavg()[0] ?? 0,
    bun: Bun.version,
  };
}

/** The facts without which the figures mean nothing. */
export function describeMachine({ ours, reference, folder }: Bench) {
  return {
    ...describeComputer(),
    stateFilesystem: firstLine('stat', '-f', '-c', '%T', folder),
    ours: firstLine(ours.executable, '--version'),
    oursMegabytes: Math.round(statSync(ours.executable).size / 1e6),
    reference: firstLine(reference.executable, '--version'),
    referencePackage: firstLine('dpkg-query', '-Wf', '${Version}', 'containernetworking-plugins'),
    iptables: firstLine('iptables', '--version'),
    containerd: firstLine('containerd', '--version'),
    runc: firstLine('runc', '--version'),
  };
}

function firstLine(...cmd: string[]): string {
  if (Bun.which(cmd[0] ?? '') === null) return 'unknown';
  const { stdout, stderr } = Bun.spawnSync(cmd, { stdin: 'ignore' });
  return `${stdout.toString()}${stderr.toString()}`.trim().split('\n', 1)[0] ?? 'unknown';
}
