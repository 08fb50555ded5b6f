import { describe } from 'vitest';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { conformance } from '../conformance/suite.ts';
import { requirement } from '../requirements.ts';

const skip = requirement('root');

function knowsVlans(): boolean {
  const backend = makeLinuxBackend();
  const { length } = backend.lacks({ vlans: true });
  backend.close();
  return length === 0;
}

describe.skipIf(skip)('the linux backend', () => {
  conformance(skip === undefined && knowsVlans(), () => ({
    backend: makeLinuxBackend(),
    names: {
      one: `cube-conformance-${process.pid}-1`,
      two: `cube-conformance-${process.pid}-2`,
    },
  }));
});
