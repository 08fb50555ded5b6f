/**
 * Bundles every file that has to run in a browser, one by one, and fails where one reaches a runtime module, directly or
 * through what it imports. The lint rules say the same per import statement; this also sees dynamic imports and packages.
 */
import { isBuiltin } from 'node:module';
import { relative } from 'node:path';
import lintRules from '../.oxlintrc.json' with { type: 'json' };

const root = new URL('..', import.meta.url).pathname;

// The lint override for the pure part of plugin/ is the one place that lists what is not pure there.
const plugin = lintRules.overrides.find(({ files }) => files.includes('plugin/**/*.ts'));
const impure = (plugin?.excludeFiles ?? []).map((pattern) => new Bun.Glob(pattern));
if (impure.length === 0) throw new Error('.oxlintrc.json has no override for plugin/**/*.ts');

const pure = ['model/**/*.ts', 'sim/**/*.ts', 'plugin/**/*.ts', 'backends/*.ts'];
// No packages at all: these are the folders that everything else is proved by.
const bare = new Bun.Glob('{model,sim}/**');

const files = pure
  .flatMap((pattern) => [...new Bun.Glob(pattern).scanSync(root)])
  .filter((file) => !impure.some((glob) => glob.match(file)))
  .toSorted();
const failures = (await Promise.all(files.map((file) => impurities(file)))).flat();

for (const failure of failures) console.error(failure);
console.log(`purity: ${files.length} files bundled for a browser, ${failures.length} failures`);
process.exitCode = failures.length === 0 ? 0 : 1;

async function impurities(file: string): Promise<readonly string[]> {
  const found: string[] = [];
  const result = await Bun.build({
    entrypoints: [`${root}${file}`],
    target: 'browser',
    throw: false,
    plugins: [
      {
        name: 'purity',
        setup(build) {
          build.onResolve({ filter: /^[^./]/ }, ({ path, importer, kind }) => {
            if (kind === 'entry-point-build') return undefined;
            const place = importer === `${root}${file}` ? '' : ` (in ${relative(root, importer)})`;
            if (isBuiltin(path) || path === 'bun' || path.startsWith('bun:')) {
              found.push(`${file}: imports ${path}${place}, which no browser has`);
            } else if (bare.match(file)) {
              found.push(`${file}: imports the package ${path}${place}`);
            } else {
              return undefined;
            }
            return { path, external: true };
          });
        },
      },
    ],
  });
  // The first one per file: one wrong import drags a hundred others along.
  return [...found, ...result.logs.map((log) => `${file}: ${log.message}`)].slice(0, 1);
}
