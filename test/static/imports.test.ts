import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');

// Who may import and use what: file, a statement it must not hold, the rule that has to catch it.
const forbidden: readonly (readonly [file: string, code: string, rule: string])[] = [
  [
    'model/a.ts',
    `import { readFileSync } from 'node:fs'; readFileSync('a');`,
    'no-restricted-imports',
  ],
  ['model/a.ts', `import { readFileSync } from 'fs'; readFileSync('a');`, 'no-restricted-imports'],
  ['model/a.ts', `import { dlopen } from 'bun:ffi'; dlopen('a', {});`, 'no-restricted-imports'],
  ['model/a.ts', `import { file } from 'bun'; file('a');`, 'no-restricted-imports'],
  ['model/a.ts', `import { z } from 'zod'; z.string();`, 'no-restricted-imports'],
  [
    'model/a.ts',
    `import type { Stats } from 'node:fs'; export type A = Stats;`,
    'no-restricted-imports',
  ],
  ['model/a.ts', `export { z } from 'zod';`, 'no-restricted-imports'],
  ['model/a.ts', `import { a } from '../sim/other.ts'; a();`, 'no-restricted-imports'],
  ['model/ops/a.ts', `import { a } from '../../plugin/other.ts'; a();`, 'no-restricted-imports'],
  ['model/ops/a.ts', `import { a } from '../../backends/memory.ts'; a();`, 'no-restricted-imports'],
  ['model/a.ts', `export async function a() {}`, 'no-async-await'],
  ['model/a.ts', `export const a = new Date();`, 'no-restricted-globals'],
  ['model/a.ts', `export const a = globalThis.Date.now();`, 'no-restricted-globals'],
  ['model/a.ts', `export const a = Math.random();`, 'no-restricted-properties'],
  ['model/a.ts', `export const { random } = Math;`, 'no-restricted-properties'],
  ['model/a.ts', `export default 1;`, 'no-default-export'],
  ['model/a.ts', `export * from './other.ts';`, 'no-barrel-file'],
  ['sim/a.ts', `export const a = performance.now();`, 'no-restricted-globals'],
  ['sim/a.ts', `export const a = process.pid;`, 'no-restricted-globals'],
  ['sim/a.ts', `export const a = Bun.version;`, 'no-restricted-globals'],
  ['sim/a.ts', `console.log(1);`, 'no-restricted-globals'],
  ['sim/a.ts', `setTimeout(() => {}, 1);`, 'no-restricted-globals'],
  ['sim/a.ts', `export const a = fetch('http://a');`, 'no-restricted-globals'],
  ['sim/a.ts', `export const a = crypto.randomUUID();`, 'no-restricted-globals'],
  ['sim/a.ts', `export const a = async () => 1;`, 'no-async-await'],
  ['sim/a.ts', `import { a } from '../backends/memory.ts'; a();`, 'no-restricted-imports'],
  ['sim/a.ts', `import { a } from '../plugin/other.ts'; a();`, 'no-restricted-imports'],
  ['sim/a.ts', `import { a } from '../test/other.ts'; a();`, 'no-restricted-imports'],
  ['backends/memory.ts', `import { a } from './linux/other.ts'; a();`, 'no-restricted-imports'],
  ['backends/memory.ts', `import { a } from '../plugin/other.ts'; a();`, 'no-restricted-imports'],
  [
    'backends/memory.ts',
    `import { readFileSync } from 'node:fs'; readFileSync('a');`,
    'no-restricted-imports',
  ],
  [
    'backends/linux/a.ts',
    `import { readFile } from 'node:fs/promises'; void readFile('a');`,
    'no-restricted-imports',
  ],
  [
    'backends/linux/a.ts',
    `import { promises } from 'node:fs'; void promises.readFile('a');`,
    'no-restricted-imports',
  ],
  [
    'backends/linux/a.ts',
    `import { readFile } from 'node:fs'; readFile('a', () => {});`,
    'no-restricted-imports',
  ],
  [
    'backends/linux/a.ts',
    `import * as fs from 'node:fs'; fs.readFileSync('a');`,
    'no-restricted-imports',
  ],
  [
    'backends/linux/a.ts',
    `import fs from 'node:fs'; fs.readFileSync('a');`,
    'no-restricted-imports',
  ],
  [
    'backends/linux/a.ts',
    `import { spawnSync } from 'node:child_process'; spawnSync('ip');`,
    'no-restricted-imports',
  ],
  ['backends/linux/a.ts', `import { z } from 'zod'; z.string();`, 'no-restricted-imports'],
  ['backends/linux/a.ts', `import { a } from '../../sim/other.ts'; a();`, 'no-restricted-imports'],
  ['backends/linux/a.ts', `import { a } from '../memory.ts'; a();`, 'no-restricted-imports'],
  ['backends/linux/a.ts', `export async function a() {}`, 'no-async-await'],
  ['backends/linux/a.ts', `export const a = Bun.file('a');`, 'no-restricted-properties'],
  ['backends/linux/a.ts', `export const a = Promise.resolve(1);`, 'no-restricted-globals'],
  [
    'plugin/config/a.ts',
    `import { readFileSync } from 'node:fs'; readFileSync('a');`,
    'no-restricted-imports',
  ],
  [
    'plugin/a.ts',
    `import { Database } from 'bun:sqlite'; export const a = new Database();`,
    'no-restricted-imports',
  ],
  ['plugin/a.ts', `import { a } from './store/other.ts'; a();`, 'no-restricted-imports'],
  ['plugin/config/a.ts', `import { a } from '../log.ts'; a();`, 'no-restricted-imports'],
  [
    'plugin/config/a.ts',
    `import { a } from '../../backends/linux/other.ts'; a();`,
    'no-restricted-imports',
  ],
  ['plugin/a.ts', `import { a } from '../labs/other.ts'; a();`, 'no-restricted-imports'],
  ['plugin/a.ts', `export const a = Date.now();`, 'no-restricted-globals'],
  ['plugin/store/a.ts', `export const a = process.env['A'];`, 'no-restricted-properties'],
  ['plugin/cli/a.ts', `export const a = Bun.env['A'];`, 'no-restricted-properties'],
  [
    'plugin/cli/a.ts',
    `import { env } from 'node:process'; export const a = env['A'];`,
    'no-restricted-imports',
  ],
  [
    'plugin/process/a.ts',
    `export function a() { Promise.resolve(1).then(() => 2); }`,
    'no-floating-promises',
  ],
];

// The same statements where they belong: a rule that forbids everything everywhere would pass the list above.
const allowed: readonly (readonly [file: string, code: string])[] = [
  ['model/ops/a.ts', `import { a } from '../other.ts'; a();`],
  ['sim/a.ts', `import { a } from '../model/other.ts'; a();`],
  ['backends/memory.ts', `import { a } from '../sim/other.ts'; a();`],
  ['backends/linux/a.ts', `import { readFileSync } from 'node:fs'; readFileSync('a');`],
  ['backends/linux/a.ts', `import { dlopen } from 'bun:ffi'; dlopen('a', {});`],
  ['backends/linux/a.ts', `import { a } from '../../model/other.ts'; a();`],
  ['backends/linux/a.ts', `import type { A } from '../backend.ts'; export type B = A;`],
  ['plugin/config/a.ts', `import { z } from 'zod'; z.string();`],
  ['plugin/config/a.ts', `import { a } from '../../model/other.ts'; a();`],
  ['plugin/main.ts', `export const a = process.env['A'];`],
  ['plugin/cli/a.ts', `import { readFileSync } from 'node:fs'; readFileSync('a');`],
  ['plugin/store/a.ts', `import { Database } from 'bun:sqlite'; export const a = new Database();`],
  ['plugin/process/a.ts', `import { a } from '../../backends/linux/other.ts'; a();`],
  ['plugin/log/a.ts', `export const a = Date.now();`],
  ['labs/a.ts', `export const a = process.env['A'];`],
];

interface Diagnostic {
  readonly code?: string;
  readonly message: string;
  readonly filename: string;
}

let complaints: ReadonlyMap<string, readonly string[]>;

// The rules go by path, so every statement is written to a path of its own in a copy of the tree: a.ts stands for any
// name, and the second statement for another name goes to a second copy.
beforeAll(() => {
  const copies: Map<string, string>[] = [];
  for (const [index, [file, code]] of [...forbidden, ...allowed].entries()) {
    const path = file.replace(/\/a\.ts$/, `/a${index}.ts`);
    const copy = copies.find((files) => !files.has(path));
    if (copy) copy.set(path, code);
    else copies.push(new Map([[path, code]]));
  }
  complaints = new Map(copies.flatMap(lint));
}, 120_000);

function lint(files: ReadonlyMap<string, string>): [string, readonly string[]][] {
  const folder = mkdtempSync(join(tmpdir(), 'cube-cni-imports-'));
  try {
    for (const config of ['.oxlintrc.json', 'tsconfig.json']) {
      copyFileSync(join(root, config), join(folder, config));
    }
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
    for (const [file, code] of files) {
      mkdirSync(dirname(join(folder, file)), { recursive: true });
      writeFileSync(join(folder, file), `${code}\n`);
    }
    const { stdout } = spawnSync(
      join(root, 'node_modules/.bin/oxlint'),
      ['--format=json', '--disable-nested-config'],
      { cwd: folder, encoding: 'utf8' },
    );
    const { diagnostics }: { diagnostics: readonly Diagnostic[] } = JSON.parse(stdout);
    return [...files].map(([file, code]) => [
      key(file.replace(/\/a\d+\.ts$/, '/a.ts'), code),
      diagnostics
        .filter(({ filename }) => filename === file)
        .map((diagnostic) => diagnostic.code ?? diagnostic.message),
    ]);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function key(file: string, code: string): string {
  return `${file}: ${code}`;
}

describe('the lint rules', () => {
  test.each(forbidden)('%s must not hold %s', (file, code, rule) => {
    expect(complaints.get(key(file, code))).toContainEqual(expect.stringContaining(rule));
  });

  test.each(allowed)('%s may hold %s', (file, code) => {
    expect(complaints.get(key(file, code))).toEqual([]);
  });
});
