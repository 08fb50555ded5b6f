/** Which kernel a host has, where kernels differ in what the model depends on. */

/** A kernel as far as anybody looked at it. */
export interface KernelProfile {
  /** Its version as uname(2) has it, `6.18.44-amd64`; absent: nobody looked, and it is taken for `MODELLED_RELEASE`. */
  readonly release?: string;
  /** Bridges know VLANs (CONFIG_BRIDGE_VLAN_FILTERING), and those of this host were looked at; absent: nobody looked. */
  readonly bridgeVlans?: boolean;
}

/** The kernel that the rules were seen on. */
const MODELLED_RELEASE = '6.18';

/** Has the kernel what came with a version? Those that number themselves otherwise have everything. */
export function isSince(kernel: KernelProfile | undefined, major: number, minor: number): boolean {
  const match = /^(\d+)\.(\d+)/.exec(kernel?.release ?? MODELLED_RELEASE);
  if (!match) return true;
  const [own, ownMinor] = [Number(match[1]), Number(match[2])];
  return own > major || (own === major && ownMinor >= minor);
}

/** May a link be renamed while it is up (K-1.3; commit bd039b5ea2a9)? */
export function renamesWhileUp(kernel: KernelProfile | undefined): boolean {
  return isSince(kernel, 6, 2);
}

/** Does nf_tables refuse to compare what a rule has not loaded (K-8.6)? Linux 6.1 does not, 6.12 does. */
export function checksRegisters(kernel: KernelProfile | undefined): boolean {
  return isSince(kernel, 6, 12);
}

/** Is the MAC that a link has already taken without a look (K-1.12)? Linux 6.1 looks at it, 6.12 does not. */
export function trustsSameMac(kernel: KernelProfile | undefined): boolean {
  return isSince(kernel, 6, 12);
}

/** Has a base chain that is hooked in elsewhere an errno of its own (K-8.6)? Not in the sources of 6.12. */
export function tellsHooks(kernel: KernelProfile | undefined): boolean {
  return isSince(kernel, 6, 13);
}

/** May a link that cannot move be sent to where it is (K-2.3)? Not in the sources of 6.12. */
export function movesNowhere(kernel: KernelProfile | undefined): boolean {
  return isSince(kernel, 6, 13);
}

/** The kernel that a plan was made for, in words. */
export function formatKernel(kernel: KernelProfile | undefined): string {
  return kernel?.release === undefined
    ? `Linux ${MODELLED_RELEASE}, assumed`
    : `Linux ${kernel.release}`;
}
