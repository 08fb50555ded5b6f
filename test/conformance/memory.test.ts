import { describe } from 'vitest';
import { makeMemoryBackend } from '../../backends/memory.ts';
import { conformance } from './suite.ts';

describe('the memory backend', () => {
  conformance(() => ({
    backend: makeMemoryBackend({ netns: {} }),
    names: { one: 'one', two: 'two' },
  }));
});
