import type { Host } from '../../model/host.ts';
import { formatKernel } from '../../model/kernel-profile.ts';

/** The version of the format: the number before the point changes when a reader of the old one would go wrong. */
const SNAPSHOT_FORMAT_VERSION = '1.0';

/** A host's network state as `cube-cni snapshot` writes it. */
export interface SnapshotFile {
  readonly formatVersion: string;
  /** The kernel it was read from, `Linux 6.18.44`. */
  readonly kernel: string;
  readonly host: Host;
}

/** The text of a snapshot. */
export function formatSnapshot(host: Host): string {
  const kernel = formatKernel(host.kernel);
  const file: SnapshotFile = { formatVersion: SNAPSHOT_FORMAT_VERSION, kernel, host };
  return `${JSON.stringify(file, null, 2)}\n`;
}
