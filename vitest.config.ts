import { defineConfig } from 'vitest/config';
import { skipReporter } from './test/skip-reporter.ts';

const onTheKernel = ['test/{linux,runtime}/**/*.test.ts'];

export default defineConfig({
  test: {
    // A process per test file: setns() changes the thread that calls it, and a leak must not reach another file.
    pool: 'forks',
    maxWorkers: 2,
    watch: false,
    passWithNoTests: true,
    reporters: [skipReporter(), 'default'],
    projects: [
      {
        extends: true,
        test: {
          name: 'portable',
          include: ['test/**/*.test.ts'],
          exclude: onTheKernel,
          setupFiles: ['test/portable-guard.ts'],
        },
      },
      {
        extends: true,
        test: {
          name: 'linux',
          include: onTheKernel,
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
    ],
  },
});
