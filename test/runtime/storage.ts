import { statfsSync } from 'node:fs';

const OVERLAYFS_SUPER_MAGIC = 0x794c7630; // include/uapi/linux/magic.h

/** Whether a folder is on an overlay, on top of which the kernel refuses another one. */
export function liesOnOverlay(folder: string): boolean {
  return statfsSync(folder).type === OVERLAYFS_SUPER_MAGIC;
}
