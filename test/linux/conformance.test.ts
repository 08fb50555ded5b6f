import { describe } from 'vitest';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { conformance } from '../conformance/suite.ts';
import { kernelProfile } from '../differential/program-run.ts';
import { requirement } from '../requirements.ts';

const skip = requirement('root');

describe.skipIf(skip)('the linux backend', () => {
  conformance(skip === undefined ? kernelProfile() : {}, () => ({
    backend: makeLinuxBackend(),
    names: {
      one: `cube-conformance-${process.pid}-1`,
      two: `cube-conformance-${process.pid}-2`,
    },
  }));
});
