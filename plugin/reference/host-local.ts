/**
 * The reference plugin host-local's reservations: one file per address in `DATADIR/NETWORK/`
 * (containernetworking/plugins, plugins/ipam/host-local/backend/disk/backend.go).
 */
import { readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { lockFile } from '../../backends/linux/lock.ts';
import { type Ip, findIp } from '../../model/ip.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';

/** An address that host-local handed out. */
export interface Reservation {
  readonly ip: Ip;
  readonly containerId: string;
  /** Undefined in files of before 0.8, which name only the container. */
  readonly ifname: string | undefined;
}

/** What is in a network's folder. */
export interface Reservations {
  readonly reservations: readonly Reservation[];
  /** Files that say nothing we understand, each with the reason. */
  readonly notUnderstood: readonly string[];
}

/** An address handed out last: host-local goes on behind it. */
export interface LastReserved {
  /** The index of the range set. */
  readonly set: number;
  readonly ip: Ip;
}

const LOCK = 'lock';
const LAST_RESERVED = /^last_reserved_ip\.(\d+)$/;

/** host-local holds its lock for some milliseconds. */
const LOCK_TIMEOUT_MS = 10_000;

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

/** A file's text, or undefined when it is gone: others come and go meanwhile. */
function findText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** The names in a folder, in order; none when there is no such folder. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).toSorted();
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  }
}

/** Container and link of a reservation: two lines, or as it was before 0.8 one. */
function parseOwner(text: string): Pick<Reservation, 'containerId' | 'ifname'> | undefined {
  const [containerId = '', ifname, ...more] = text.trim().split(/\r?\n/);
  if (!/^\S+$/.test(containerId) || more.length > 0) return undefined;
  if (ifname === undefined) return { containerId, ifname: undefined };
  return /^\S+$/.test(ifname) ? { containerId, ifname } : undefined;
}

/** All reservations in a network's folder; a folder that does not exist holds none. */
export function reservations(folder: string): Reservations {
  const found: Reservation[] = [];
  const notUnderstood: string[] = [];
  for (const name of namesIn(folder)) {
    if (name === LOCK || LAST_RESERVED.test(name)) continue;
    const path = `${folder}/${name}`;
    const ip = findIp(name);
    if (ip === undefined) {
      notUnderstood.push(`${path}: its name is no address`);
      continue;
    }
    if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) {
      notUnderstood.push(`${path}: it is a folder`);
      continue;
    }
    const text = findText(path);
    if (text === undefined) continue;
    const owner = parseOwner(text);
    // A power cut leaves empty files: host-local does not wait for the disk.
    if (owner) found.push({ ip, ...owner });
    else notUnderstood.push(`${path}: ${text.trim() === '' ? 'it is empty' : 'it names no owner'}`);
  }
  return { reservations: found, notUnderstood };
}

/** Has host-local handed out the address? One look, however many there are; a file that nobody understands counts too, as it does for host-local. */
export function isReserved(folder: string, ip: Ip): boolean {
  return statSync(`${folder}/${ip}`, { throwIfNoEntry: false }) !== undefined;
}

/** The addresses that were handed out last, one for each range set that has one. */
export function lastReserved(folder: string): LastReserved[] {
  return namesIn(folder)
    .flatMap((name): LastReserved[] => {
      const set = LAST_RESERVED.exec(name)?.[1];
      const ip =
        set === undefined ? undefined : findIp(findText(`${folder}/${name}`)?.trim() ?? '');
      return set === undefined || ip === undefined ? [] : [{ set: Number(set), ip }];
    })
    .toSorted((a, b) => a.set - b.set);
}

/** The reservations of an attachment; only when there are none those that name the container alone, as in host-local. */
export function reservationsOf(
  all: readonly Reservation[],
  containerId: string,
  ifname: string,
): Reservation[] {
  const ofContainer = all.filter((each) => each.containerId === containerId);
  const own = ofContainer.filter((each) => each.ifname === ifname);
  return own.length > 0 ? own : ofContainer.filter((each) => each.ifname === undefined);
}

/**
 * Gives back the addresses of an attachment while holding host-local's lock, which is flock(2) on the file `lock` of
 * the folder, and answers which they were. A folder that does not exist has none. Throws a CniError of code 11 when
 * the lock is held for too long.
 */
export function release(folder: string, containerId: string, ifname: string): Ip[] {
  if (!statSync(folder, { throwIfNoEntry: false })) return [];
  const lock = lockFile(`${folder}/${LOCK}`, LOCK_TIMEOUT_MS);
  if (!lock) {
    throw new CniError(
      CNI_ERROR.tryAgainLater,
      `host-local holds ${folder}/${LOCK} for more than ${LOCK_TIMEOUT_MS / 1000} s`,
    );
  }
  try {
    const own = reservationsOf(reservations(folder).reservations, containerId, ifname);
    for (const { ip } of own) rmSync(`${folder}/${ip}`, { force: true });
    return own.map(({ ip }) => ip);
  } finally {
    lock.release();
  }
}
