/**
 * Tracepoints of the kernel, through an instance of tracefs that is this process's own
 * (Documentation/trace/ftrace.rst, "Instances"): others that trace are neither seen nor disturbed.
 */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import type { Fault } from '../../model/errno.ts';
import { faultOf } from './fault.ts';
import { cString, lastErrno, numberSyscall, textSyscall } from './libc.ts';
import { isFault } from './socket.ts';

/** Where a machine has tracefs mounted, if it has. */
const USUAL_ROOT = '/sys/kernel/tracing';

/** By number, which these share on all architectures (kernel 5.2). */
const SYS_FSOPEN = 430;
const SYS_FSCONFIG = 431;
const SYS_FSMOUNT = 432;
const FLAG_CLOEXEC = 1;
const FSCONFIG_CMD_CREATE = 6;

/** What the instances of this program are called, before the pid. */
const INSTANCE_PREFIX = 'cube-cni-';

/** Per CPU; a probe makes some ten events of 100 bytes, the rest is for packets that look alike. */
const BUFFER_KIB = 256;

/** A tracefs to work with. */
interface Root {
  readonly path: string;
  /** The mount, where it is ours. */
  readonly fd: number | undefined;
}

function fault(text: string): Fault {
  return { errno: lastErrno(), text };
}

/**
 * A mount that is in no mount namespace: reachable by its file descriptor alone, and gone with it, however the
 * process ends (fs/namespace.c, fsmount).
 */
function mountDetached(): Root | Fault {
  const type = cString('tracefs');
  const context = textSyscall().syscall(SYS_FSOPEN, type, FLAG_CLOEXEC, 0, 0, 0);
  if (context < 0) return fault('opening tracefs');
  try {
    const { syscall } = numberSyscall();
    if (syscall(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, 0, 0, 0) < 0)
      return fault('opening tracefs');
    const fd = syscall(SYS_FSMOUNT, context, FLAG_CLOEXEC, 0, 0, 0);
    return fd < 0 ? fault('mounting tracefs') : { path: `/proc/self/fd/${fd}`, fd };
  } finally {
    closeSync(context);
  }
}

function openRoot(): Root | Fault {
  return existsSync(`${USUAL_ROOT}/instances`)
    ? { path: USUAL_ROOT, fd: undefined }
    : mountDetached();
}

/** Removes instances whose process has ended; one that is in use all the same is EBUSY, and stays. */
function removeLeftovers(root: string): void {
  for (const name of readdirSync(`${root}/instances`)) {
    const pid = name.startsWith(INSTANCE_PREFIX) ? name.slice(INSTANCE_PREFIX.length) : '';
    if (!/^\d+$/.test(pid) || existsSync(`/proc/${pid}`)) continue;
    try {
      rmdirSync(`${root}/instances/${name}`);
    } catch (error) {
      faultOf(error);
    }
  }
}

/** An instance of tracefs. `close` it: it takes memory of the kernel until it is removed. */
export class TraceInstance {
  readonly #root: Root;
  readonly #path: string;
  /** Keeps others from removing it, who may not see this process (kernel/trace/trace.c, instance_rmdir). */
  readonly #hold: number;

  /** Takes over a tracefs and an instance in it. */
  constructor(root: Root, path: string) {
    this.#root = root;
    this.#path = path;
    this.#hold = openSync(`${path}/trace_pipe`, 'r');
  }

  #write(file: string, text: string): Fault | undefined {
    try {
      writeFileSync(`${this.#path}/${file}`, text);
      return undefined;
    } catch (error) {
      return { ...faultOf(error), text: `writing "${text}" to tracefs, ${file}` };
    }
  }

  /** Small buffers that keep what comes first, and one clock for all CPUs. */
  configure(): Fault | undefined {
    return (
      this.#write('buffer_size_kb', `${BUFFER_KIB}`) ??
      this.#write('options/overwrite', '0') ??
      this.#write('trace_clock', 'mono')
    );
  }

  /** Switches a tracepoint on, `net/net_dev_queue`, for events that pass the filter; ENOENT where the kernel has none of that name. */
  enable(event: string, filter: string): Fault | undefined {
    if (!existsSync(`${this.#path}/events/${event}`))
      return { errno: 'ENOENT', text: `this kernel has no tracepoint ${event.replace('/', ':')}` };
    return (
      this.#write(`events/${event}/filter`, filter) ?? this.#write(`events/${event}/enable`, '1')
    );
  }

  /** Ends the recording; what was recorded can be read. */
  stop(): Fault | undefined {
    return this.#write('tracing_on', '0');
  }

  /** All that was recorded, a line per event, oldest first. */
  read(): string {
    return readFileSync(`${this.#path}/trace`, 'utf8');
  }

  /** How many events did not fit into the buffers. */
  lostEvents(): number {
    const counts = readdirSync(`${this.#path}/per_cpu`).map((cpu) => {
      const stats = readFileSync(`${this.#path}/per_cpu/${cpu}/stats`, 'utf8');
      return [...stats.matchAll(/^(?:overrun|dropped events): (\d+)$/gm)].map(([, n]) => Number(n));
    });
    return counts.flat().reduce((sum, each) => sum + each, 0);
  }

  /** Removes the instance, and what was mounted for it. */
  close(): void {
    closeSync(this.#hold);
    try {
      rmdirSync(this.#path);
    } finally {
      if (this.#root.fd !== undefined) closeSync(this.#root.fd);
    }
  }
}

/**
 * A new instance, `cube-cni-PID`, in which no tracepoint is on; those that dead processes left are removed. EPERM without
 * CAP_SYS_ADMIN or on a kernel that is locked down, ENODEV on one without tracefs, ENOSYS on one before 5.2 where nobody mounted it.
 */
export function openTraceInstance(pid: number): TraceInstance | Fault {
  const root = openRoot();
  if (isFault(root)) return root;
  const path = `${root.path}/instances/${INSTANCE_PREFIX}${pid}`;
  try {
    removeLeftovers(root.path);
    mkdirSync(path);
  } catch (error) {
    if (root.fd !== undefined) closeSync(root.fd);
    return { ...faultOf(error), text: 'making an instance of tracefs' };
  }
  const instance = new TraceInstance(root, path);
  const refused = instance.configure();
  if (!refused) return instance;
  instance.close();
  return refused;
}
