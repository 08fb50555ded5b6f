/** Which kernel it is. */
import type { KernelProfile } from '../../model/kernel-profile.ts';
import { isFault } from './socket.ts';
import { readSysctls } from './sysctl.ts';

const RELEASE = 'kernel/osrelease';

/** The release that uname(2) tells, `6.18.44`; nothing where /proc is not there to tell it. */
export function readRelease(): Pick<KernelProfile, 'release'> {
  const answer = readSysctls([RELEASE]);
  const release = isFault(answer) ? undefined : answer[RELEASE];
  return release === undefined ? {} : { release };
}
