/**
 * Network namespaces by name, and running something inside one. setns(2) moves only the calling thread:
 * the main thread, which therefore must return before anything else runs (net/core/net_namespace.c, netns_install).
 */
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import type { Fault } from '../../model/errno.ts';
import { HOST_NETNS, type NetnsName } from '../../model/host.ts';
import { faultOf } from './fault.ts';
import { cString, lastErrno, mountFunctions, netnsFunctions } from './libc.ts';

const CLONE_NEWNET = 0x40000000;
const MS_BIND = 0x1000;
const MS_REC = 0x4000;
const MS_SHARED = 0x100000;
const MNT_DETACH = 2;

/** Where iproute2 keeps named netns: a file per name, with the netns mounted on it. */
const RUN_NETNS = '/run/netns';
/** The netns of this process: of its main thread, so while inside another netns it is that one. */
const OWN_NETNS = '/proc/self/ns/net';

let own: number | undefined;

/** A file descriptor of the netns that the process started in; opened once, at the latest before the first setns. */
function ownNetns(): number {
  own ??= openSync(OWN_NETNS, 'r');
  return own;
}

/** Where a netns can be opened: its path for a name, the path itself for an absolute one. */
export function netnsPath(name: NetnsName): string {
  if (name === HOST_NETNS) return OWN_NETNS;
  return name.startsWith('/') ? name : `${RUN_NETNS}/${name}`;
}

/** A file descriptor of the netns, for the caller to close; ENOENT when there is none with that name. */
export function openNetns(name: NetnsName): number | Fault {
  try {
    // A path may lead to a named pipe, which would keep us waiting.
    return openSync(netnsPath(name), constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    return faultOf(error);
  }
}

function enter(fd: number): Fault | undefined {
  const failed = netnsFunctions().setns(fd, CLONE_NEWNET) < 0;
  return failed ? { errno: lastErrno(), text: '' } : undefined;
}

/** The way back has to succeed: in the wrong netns every later operation would change the wrong machine. */
function returnHome(): void {
  const fault = enter(ownNetns());
  if (fault) {
    process.stderr.write(`cannot return to the own netns: ${fault.errno}\n`);
    process.kill(process.pid, 'SIGKILL');
  }
}

/**
 * Runs `act` in the netns behind a file descriptor and answers what it answered; a fault (EINVAL) when that is no
 * netns. `act` must be synchronous: threads of Bun's pool are not moved along.
 */
export function insideNetns<T>(fd: number, act: () => T): T | Fault {
  ownNetns();
  const fault = enter(fd);
  if (fault) return fault;
  try {
    return act();
  } finally {
    returnHome();
  }
}

/** Is there a netns at the path? A file of another kind is none. */
export function isNetns(path: string): boolean {
  const fd = openNetns(path);
  if (typeof fd !== 'number') return false;
  try {
    return insideNetns(fd, () => undefined) === undefined;
  } finally {
    closeSync(fd);
  }
}

/** Is the netns at the path the one that the process started in? False when nothing is there, or hidden from us. */
export function sameNetns(path: string): boolean {
  try {
    const there = statSync(path);
    const here = fstatSync(ownNetns());
    return there.dev === here.dev && there.ino === here.ino;
  } catch (error) {
    // /proc/1/ns/net answers EACCES to those who may not trace process 1.
    faultOf(error);
    return false;
  }
}

function mount(source: string, target: string, flags: number): Fault | undefined {
  const failed =
    mountFunctions().mount(cString(source), cString(target), cString('none'), flags, null) < 0;
  return failed ? { errno: lastErrno(), text: `mounting ${target}` } : undefined;
}

/** /run/netns as iproute2 makes it: a mount that is shared, so that mounts below it reach other mount namespaces. */
function prepareRunNetns(): Fault | undefined {
  mkdirSync(RUN_NETNS, { recursive: true, mode: 0o755 });
  const fault = mount('', RUN_NETNS, MS_SHARED | MS_REC);
  // EINVAL: it is no mount point yet.
  if (fault?.errno !== 'EINVAL') return fault;
  return mount(RUN_NETNS, RUN_NETNS, MS_BIND | MS_REC) ?? mount('', RUN_NETNS, MS_SHARED | MS_REC);
}

/** Makes the present thread's netns a new one, keeps it by mounting it on the path, and returns. */
function unshareOnto(path: string): Fault | undefined {
  ownNetns();
  if (mountFunctions().unshare(CLONE_NEWNET) < 0) return { errno: lastErrno(), text: 'unshare' };
  try {
    return mount(OWN_NETNS, path, MS_BIND);
  } finally {
    returnHome();
  }
}

/** Makes a netns with a name, or at an absolute path; EEXIST when there is a file already. */
export function addNetns(name: NetnsName): Fault | undefined {
  if (name === HOST_NETNS) return { errno: 'EEXIST', text: 'the name means the own netns' };
  const path = netnsPath(name);
  try {
    const fault = name.startsWith('/') ? undefined : prepareRunNetns();
    if (fault) return fault;
    closeSync(openSync(path, 'wx', 0o444));
  } catch (error) {
    return faultOf(error);
  }
  const fault = unshareOnto(path);
  if (fault) unlinkSync(path);
  return fault;
}

/**
 * Takes the name from a netns; ENOENT without one. The netns itself ends when nothing else holds it, and its links
 * with it some 40 ms later (net/core/net_namespace.c, cleanup_net is a work queue).
 */
export function delNetns(name: NetnsName): Fault | undefined {
  if (name === HOST_NETNS) return { errno: 'EBUSY', text: 'the name means the own netns' };
  const path = netnsPath(name);
  try {
    // EINVAL: nothing is mounted there, which is what is left of a netns.add that was interrupted.
    if (mountFunctions().umount2(cString(path), MNT_DETACH) < 0) {
      const errno = lastErrno();
      if (errno !== 'EINVAL') return { errno, text: '' };
    }
    unlinkSync(path);
    return undefined;
  } catch (error) {
    return faultOf(error);
  }
}
