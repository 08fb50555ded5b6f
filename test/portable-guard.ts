import { vi } from 'vitest';

// A portable test answers the same on a laptop without Linux. This makes sure of it on Linux too: whatever a test or the
// code under test imports, native calls and the kernel's file systems are out of reach.
// vi.mock and not a Bun plugin: Bun refuses to override its builtin modules, and named imports of node:fs keep their
// binding when the module object is patched.

type Exports = Record<string, unknown>;

function forbid(what: string): never {
  throw new Error(
    `${what} in a portable test: move the test to test/linux, or the access behind the backend`,
  );
}

function kernelPath(path: unknown): string | undefined {
  const text = path instanceof URL ? path.pathname : Buffer.isBuffer(path) ? path.toString() : path;
  return typeof text === 'string' && /^\/(proc|sys)(\/|$)/.test(text) ? text : undefined;
}

function withoutKernelPaths(exports: Exports): Exports {
  const guarded = Object.entries(exports).map(([name, value]): [string, unknown] => {
    if (name === 'default' || name === 'promises') {
      return [name, withoutKernelPaths(value as Exports)];
    }
    // Classes (Stats, Dirent, ReadStream) stay as they are: they are compared with instanceof.
    if (typeof value !== 'function' || /^[A-Z]/.test(name)) return [name, value];
    const call = value as (...args: unknown[]) => unknown;
    const guard = (...args: unknown[]): unknown => {
      const met = kernelPath(args[0]) ?? kernelPath(args[1]);
      return met === undefined ? call(...args) : forbid(`${name}(${met})`);
    };
    return [name, Object.assign(guard, value)];
  });
  return Object.fromEntries(guarded);
}

function withoutNativeCalls(exports: Exports): Exports {
  const guarded: Exports = { ...exports };
  for (const name of ['dlopen', 'linkSymbols', 'CFunction', 'cc']) {
    guarded[name] = () => forbid(`bun:ffi ${name}()`);
  }
  return { ...guarded, default: guarded };
}

vi.mock('bun:ffi', async (original) => withoutNativeCalls(await original<Exports>()));
vi.mock('node:fs', async (original) => withoutKernelPaths(await original<Exports>()));
vi.mock('fs', async (original) => withoutKernelPaths(await original<Exports>()));
vi.mock('node:fs/promises', async (original) => withoutKernelPaths(await original<Exports>()));
vi.mock('fs/promises', async (original) => withoutKernelPaths(await original<Exports>()));

const bunFile = Bun.file;
Object.assign(Bun, {
  file: (...args: Parameters<typeof bunFile>) => {
    const met = kernelPath(args[0]);
    return met === undefined ? bunFile(...args) : forbid(`Bun.file(${met})`);
  },
});
