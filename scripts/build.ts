/**
 * Compiles plugin/main.ts into one executable.
 *
 *     npm run build                                   dist/cube-cni, for this machine
 *     npm run build -- --target linux-arm64,linux-x64-musl
 *     npm run build -- --target all                   dist/cube-cni-TARGET, for each
 */
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { version } from '../package.json' with { type: 'json' };

/** The npm package that holds Bun's executable for each target. */
const RUNTIMES = {
  'linux-x64': '@oven/bun-linux-x64',
  'linux-x64-baseline': '@oven/bun-linux-x64-baseline',
  'linux-arm64': '@oven/bun-linux-aarch64',
  'linux-x64-musl': '@oven/bun-linux-x64-musl',
  'linux-arm64-musl': '@oven/bun-linux-aarch64-musl',
} as const;

type Target = keyof typeof RUNTIMES;

const root = new URL('..', import.meta.url).pathname;

try {
  for (const target of targets()) {
    const started = performance.now();
    const outfile = `${root}dist/cube-cni${target === undefined ? '' : `-${target}`}`;
    await compile(outfile, target === undefined ? process.execPath : runtime(target));
    const megabytes = (statSync(outfile).size / 1e6).toFixed(1);
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`${outfile.slice(root.length)}  ${megabytes} MB  ${seconds} s`);
  }
} catch (error) {
  console.error(`build: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}

/** undefined stands for this machine. */
function targets(): readonly (Target | undefined)[] {
  const { values } = parseArgs({ options: { target: { type: 'string', multiple: true } } });
  const names = (values.target ?? []).flatMap((list) => list.split(','));
  if (names.length === 0) return [undefined];
  const known = Object.keys(RUNTIMES).filter(isTarget);
  const unknown = names.filter((name) => name !== 'all' && !isTarget(name));
  if (unknown.length > 0) {
    throw new Error(`Unknown target ${unknown.join(', ')}: it is one of ${known.join(', ')}, all`);
  }
  return names.includes('all') ? known : names.filter(isTarget);
}

function isTarget(name: string): name is Target {
  return Object.hasOwn(RUNTIMES, name);
}

async function compile(outfile: string, executablePath: string): Promise<void> {
  mkdirSync(`${root}dist`, { recursive: true });
  // Built beside it and renamed, so that nobody runs half an executable, or makes the build fail (ETXTBSY) by running it.
  // In a folder of its own: the file name becomes part of the executable, which is then the same every time.
  const folder = mkdtempSync(`${root}dist/.build-`);
  const unfinished = join(folder, basename(outfile));
  try {
    const result = await Bun.build({
      entrypoints: [`${root}plugin/main.ts`],
      compile: {
        outfile: unfinished,
        executablePath,
        // A compiled executable would otherwise obey the files of whatever folder it is started in.
        autoloadDotenv: false,
        autoloadBunfig: false,
        autoloadTsconfig: false,
        autoloadPackageJson: false,
      },
      define: { CUBE_CNI_VERSION: JSON.stringify(version) },
      // With CommonJS, the default for bytecode, import.meta.url is the path on the machine that built it.
      format: 'esm',
      // What a call does not import is not even read: half of the time that VERSION takes.
      splitting: true,
      bytecode: true,
      minify: true,
      sourcemap: 'none',
      throw: false,
    });
    if (!result.success) throw new Error(result.logs.map(String).join('\n'));
    renameSync(unfinished, outfile);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Bun's executable for another platform, from the npm registry. By npm and not by Bun's own download, which asks only
 * registry.npmjs.org, whatever registry is configured, and knows nothing of the lock file.
 */
function runtime(target: Target): string {
  const name = RUNTIMES[target];
  const folder = `${root}node_modules/.cache/${name}-${Bun.version}`;
  const executable = `${folder}/package/bin/bun`;
  if (Bun.file(executable).size > 0) return executable;

  mkdirSync(folder, { recursive: true });
  const [packed] = JSON.parse(
    run(['npm', 'pack', `${name}@${Bun.version}`, '--json', '--pack-destination', folder]),
  );
  const archive = `${folder}/${packed.filename}`;
  const integrity = `sha512-${new Bun.CryptoHasher('sha512').update(readFileSync(archive)).digest('base64')}`;
  const lock = JSON.parse(readFileSync(`${root}package-lock.json`, 'utf8'));
  // The baseline package is not in the lock file: bun does not depend on it. npm has checked it against the registry.
  const expected = lock.packages[`node_modules/${name}`]?.integrity ?? packed.integrity;
  if (integrity !== expected) {
    throw new Error(`${name}@${Bun.version} has ${integrity}, package-lock.json says ${expected}`);
  }
  run(['tar', '-xzf', archive, '-C', folder]);
  rmSync(archive);
  return executable;
}

function run(command: readonly [string, ...string[]]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...command], { cwd: root });
  if (exitCode !== 0) throw new Error(`${command.join(' ')}: ${stderr.toString().trim()}`);
  return stdout.toString();
}
