/**
 * Installs the dependencies when they are not the ones that package-lock.json names, before any npm script that needs
 * them. Runs before anything is installed, so: plain Node, no packages.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const stampFile = `${root}node_modules/.installed-from`;
const bun = [`${root}node_modules/.bin/bun`, '--version'];

function fail(message) {
  console.error(`dependencies: ${message}`);
  process.exit(1);
}

function run([command, ...args], stdio) {
  return spawnSync(command, args, { cwd: root, stdio, shell: process.platform === 'win32' });
}

/** Why an install is needed, or undefined. */
function reason(stamp) {
  if (!existsSync(`${root}node_modules`)) return 'node_modules is missing';
  if (!existsSync(stampFile)) return 'node_modules was not finished, or made by another command';
  const installed = readFileSync(stampFile, 'utf8');
  if (installed === stamp) return undefined;
  return installed.split(' ')[0] === stamp.split(' ')[0]
    ? 'package-lock.json changed'
    : `node_modules is for ${installed.split(' ')[0]}`;
}

if (Number(process.versions.node.split('.')[0]) < 20) {
  fail(`needs Node 20 or newer, this is ${process.versions.node}`);
}

const lock = createHash('sha256')
  .update(readFileSync(`${root}package-lock.json`))
  .digest('hex');
// With the platform, since a tree shared with a container or a VM holds the executables of only one of them.
const stamp = `${process.platform}-${process.arch} ${lock}`;
const why = reason(stamp);

if (why !== undefined) {
  console.error(`dependencies: npm ci (${why})`);
  const ci = run(
    ['npm', 'ci', '--no-audit', '--no-fund', '--loglevel=error'],
    ['ignore', 'ignore', 'inherit'],
  );
  if (ci.error) fail(`cannot run npm: ${ci.error.message}`);
  if (ci.status !== 0) {
    fail(
      'npm ci failed, see above. It needs the npm registry (or a warm npm cache) and write access here.',
    );
  }
  // Bun's executable is put in place by its install script, which ignore-scripts=true in an .npmrc prevents.
  if (run(bun, 'ignore').status !== 0) {
    run(['node', `${root}node_modules/bun/install.js`], 'inherit');
  }
  if (run(bun, 'ignore').status !== 0) {
    fail('Bun was installed but does not start: try node_modules/.bin/bun --version');
  }
  writeFileSync(stampFile, stamp);
}
