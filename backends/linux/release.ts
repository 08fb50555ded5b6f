/** Which kernel it is. */
import type { KernelProfile } from '../../model/kernel-profile.ts';
import { readSysctl } from './sysctl.ts';

/** The release that uname(2) tells, `6.18.44`; nothing where /proc is not there to tell it. */
export function readRelease(): Pick<KernelProfile, 'release'> {
  const answer = readSysctl('kernel/osrelease');
  return 'value' in answer ? { release: answer.value } : {};
}
