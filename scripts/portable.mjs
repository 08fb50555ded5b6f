/**
 * Runs the portable tests as nobody when started by root, so that no test passes only because it may do everything.
 * Node and not Bun: it is there on every machine, and its spawn drops the supplementary groups too.
 */
import { spawnSync } from 'node:child_process';
import { chownSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NOBODY = { uid: 65534, gid: 65534 };
const root = fileURLToPath(new URL('..', import.meta.url));
const home = mkdtempSync(join(tmpdir(), 'cube-cni-portable-'));
const env = { ...process.env, HOME: home, TMPDIR: home };
const bun = join(root, 'node_modules/.bin/bun');

/** @returns {number} the exit status */
function vitest(user) {
  const args = ['--bun', 'vitest', 'run', '--configLoader=native', '--project=portable'];
  const command = [...args, ...process.argv.slice(2)];
  return spawnSync(bun, command, { cwd: root, stdio: 'inherit', env, ...user }).status ?? 1;
}

/** A clone in root's home is not, nor is one made with a strict umask. */
function readableByNobody() {
  return spawnSync(bun, ['--version'], { cwd: home, env, ...NOBODY }).status === 0;
}

if (process.getuid?.() !== 0) {
  process.exitCode = vitest({});
} else {
  chownSync(home, NOBODY.uid, NOBODY.gid);
  const readable = readableByNobody();
  if (!readable) {
    console.error(`portable: uid ${NOBODY.uid} cannot read ${root}, so the tests run as root`);
  }
  process.exitCode = vitest(readable ? NOBODY : {});
}
rmSync(home, { recursive: true, force: true });
