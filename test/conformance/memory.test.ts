import { describe } from 'vitest';
import { makeMemoryBackend } from '../../backends/memory.ts';
import { conformance } from './suite.ts';

describe.each([
  ['Linux 6.18', { release: '6.18.0', bridgeVlans: true }],
  ['Linux 6.18 whose bridges know no VLANs', { release: '6.18.0', bridgeVlans: false }],
  ['Linux 6.1', { release: '6.1.0-50-amd64', bridgeVlans: true }],
])('the memory backend of %s', (_what, kernel) => {
  conformance(kernel, () => ({
    backend: makeMemoryBackend({ netns: {}, kernel }),
    names: { one: 'one', two: 'two' },
  }));
});
