/** Which machine, boot and process this is. */
import { readFileSync } from 'node:fs';
import type { Identity } from '../attachment.ts';
import type { Worker } from '../state.ts';

/** A file's text without the line break at its end, or undefined when it cannot be read. */
function readLine(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function sha256(text: string): Uint8Array {
  return new Bun.CryptoHasher('sha256').update(text).digest();
}

/** The machine by its id (machine-id(5)). Without one, names and MAC addresses depend on the attachment alone. */
export function machineIdentity(): Identity {
  return {
    machineId: readLine('/etc/machine-id') ?? readLine('/var/lib/dbus/machine-id') ?? '',
    digest: sha256,
  };
}

/** The id of this boot (random(4)); where there is none, as outside Linux, every run counts as the same boot. */
export function bootId(): string {
  return readLine('/proc/sys/kernel/random/boot_id') ?? 'unknown';
}

/** When a process started, or undefined when there is none. The name before it may hold spaces and brackets. */
function startTimeOf(pid: number): string | undefined {
  const stat = readLine(`/proc/${pid}/stat`);
  // proc(5): field 22; the fields are counted from behind the name, which is the second.
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
}

export function thisWorker(): Worker {
  return { pid: process.pid, startTime: startTimeOf(process.pid) ?? '' };
}

/** Is it still that process, and does it still run? One that only waits for its parent to take note does not. */
export function isAlive(worker: Worker): boolean {
  const stat = readLine(`/proc/${worker.pid}/stat`);
  if (stat === undefined) return false;
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[19] === worker.startTime && fields[0] !== 'Z' && fields[0] !== 'X';
}
