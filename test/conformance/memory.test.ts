import { describe } from 'vitest';
import { makeMemoryBackend } from '../../backends/memory.ts';
import { conformance } from './suite.ts';

describe.each([
  ['that knows VLANs', true],
  ['that knows none', false],
])('the memory backend of a kernel %s', (_what, bridgeVlans) => {
  conformance(bridgeVlans, () => ({
    backend: makeMemoryBackend({ netns: {}, kernel: { bridgeVlans } }),
    names: { one: 'one', two: 'two' },
  }));
});
