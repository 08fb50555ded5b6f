import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { failure, invocations, type Verb } from './call.ts';
import type { Host, Pod } from './host.ts';
import { inNetns } from './netns.ts';

/**
 * The highest resident set of one call, of a plugin's own process without those that it starts.
 *
 * ru_maxrss (Bun's resourceUsage) cannot say this: exec keeps the high-water mark of the address
 * space that it replaces (fs/exec.c, exec_mmap), which after a vfork is the bench's own, so that
 * /bin/true would "need" 32 MB. VmHWM belongs to the new address space alone. It never falls and
 * is read every few microseconds until the process ends; GNU time gives the same within 2 %.
 */
export async function peakMemory(
  host: Host,
  verb: Verb,
  pod: Pod,
): Promise<{ readonly bytes: number; readonly stdout: string }> {
  // Files, not pipes: nobody would serve a pipe while this thread watches the process.
  const [inputPath, outputPath] = [join(host.folder, 'stdin'), join(host.folder, 'stdout')];
  const processes = invocations(host, verb, pod);
  let bytes = 0;
  let next = processes.next();
  while (next.done !== true) {
    const invocation = next.value;
    const { cmd, env } = invocation;
    writeFileSync(inputPath, invocation.stdin);
    const [stdin, stdout] = [openSync(inputPath, 'r'), openSync(outputPath, 'w')];
    const child = inNetns(host.netns, () =>
      Bun.spawn({ cmd: [...cmd], env, stdin, stdout, stderr: stdout }),
    );
    bytes = Math.max(bytes, watchMemory(child.pid));
    const exitCode = await child.exited;
    closeSync(stdin);
    closeSync(stdout);
    const text = readFileSync(outputPath, 'utf8');
    if (exitCode !== 0) throw failure(invocation, text);
    next = processes.next(text);
  }
  return { bytes, stdout: next.value };
}

function watchMemory(pid: number): number {
  let kibibytes = 0;
  for (;;) {
    const status = findStatus(pid);
    // A process has no Vm lines for a moment before it is a zombie, and while exec swaps them.
    if (status === undefined || /^State:\s+[ZX]/m.test(status)) return kibibytes * 1024;
    kibibytes = Math.max(kibibytes, Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0));
  }
}

function findStatus(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch {
    return undefined;
  }
}
