import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

interface LockedPackage {
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

const text = readFileSync(join(import.meta.dirname, '../../package-lock.json'), 'utf8');
const { packages }: { packages: Readonly<Record<string, LockedPackage>> } = JSON.parse(text);

// A package that ships executables lists one optional package per platform. npm writes an incomplete lock file without a
// word when one is missing from the registry, and only `npm ci` on that platform tells.
const families = Object.entries(packages)
  .map(([path, { optionalDependencies = {} }]) => ({
    name: path.replace('node_modules/', ''),
    members: Object.keys(optionalDependencies).filter((name) =>
      /darwin|linux|win32|windows/.test(name),
    ),
  }))
  .filter(({ members }) => members.length > 0);

const platforms = [
  { os: 'darwin', cpu: 'arm64' },
  { os: 'linux', cpu: 'x64' },
  { os: 'linux', cpu: 'arm64' },
];

function locked(name: string): LockedPackage | undefined {
  return packages[`node_modules/${name}`];
}

describe('package-lock.json', () => {
  test('knows the packages with executables', () => {
    const names = families.map(({ name }) => name);
    expect(names).toEqual(
      expect.arrayContaining([
        'bun',
        'oxlint',
        'oxlint-tsgolint',
        'oxfmt',
        'rolldown',
        'typescript',
      ]),
    );
  });

  test.each(families)('has every platform package of $name', ({ members }) => {
    expect(members.filter((name) => locked(name) === undefined)).toEqual([]);
  });

  test.each(families)('installs $name on macOS and Linux', ({ members }) => {
    for (const { os, cpu } of platforms) {
      const fitting = members.filter((name) => {
        const entry = locked(name);
        return entry?.os?.includes(os) === true && entry.cpu?.includes(cpu) === true;
      });
      expect(fitting, `${os}-${cpu}`).not.toEqual([]);
    }
  });

  test('names no registry host', () => {
    expect(text).not.toContain('"resolved": "http');
  });
});
