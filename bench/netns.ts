import { dlopen } from 'bun:ffi';
import { closeSync, existsSync, openSync, readdirSync } from 'node:fs';

const FOLDER = '/run/netns';
const CLONE_NEWNET = 0x40000000;
const libc = dlopen('libc.so.6', { setns: { args: ['i32', 'i32'], returns: 'i32' } });
const home = openSync('/proc/thread-self/ns/net', 'r');

/** Makes the netns that `ip netns` lists as `name`, and says where it is mounted. */
export function addNetns(name: string): string {
  ipNetns('add', [name]);
  return `${FOLDER}/${name}`;
}

/** Deletes every netns whose name begins with `prefix`, with all the links inside. */
export function deleteNetns(prefix: string): void {
  if (!existsSync(FOLDER)) return;
  const names = readdirSync(FOLDER).filter((name) => name.startsWith(prefix));
  ipNetns('del', names);
}

function ipNetns(verb: 'add' | 'del', names: readonly string[]): void {
  const lines = names.map((name) => `netns ${verb} ${name}\n`).join('');
  const ip = Bun.spawnSync(['ip', '-batch', '-'], { stdin: Buffer.from(lines) });
  if (!ip.success) throw new Error(`Cannot ${verb} netns: ${ip.stderr.toString().trim()}`);
}

/**
 * Runs `action` with the calling thread in the netns at `path`, and comes back. A process that
 * `action` spawns is born in that netns, as if `nsenter --net` had started it, but without the
 * cost of that start. `action` is synchronous: after an await it would go on in the home netns.
 */
export function inNetns<T>(path: string, action: () => T): T {
  const netns = openSync(path, 'r');
  try {
    enter(netns, path);
    return action();
  } finally {
    enter(home, 'the netns that the bench was started in');
    closeSync(netns);
  }
}

function enter(netns: number, name: string): void {
  if (libc.symbols.setns(netns, CLONE_NEWNET) !== 0) throw new Error(`Cannot enter ${name}`);
}
