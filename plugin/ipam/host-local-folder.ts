import type { Request } from '../cni/request.ts';

/** Where host-local keeps the reservations of its networks unless its configuration says otherwise. */
const HOST_LOCAL_DATA_DIR = '/var/lib/cni/networks';

/** The folder with host-local's reservations of a network; `ipam.dataDir` is its key, and kept when the network is ours. */
export function hostLocalOf({ config, key }: Pick<Request, 'config' | 'key'>): string {
  const { ipam } = config;
  const dataDir =
    ipam !== null && typeof ipam === 'object' ? (ipam as { dataDir?: unknown }).dataDir : undefined;
  const parent = typeof dataDir === 'string' && dataDir !== '' ? dataDir : HOST_LOCAL_DATA_DIR;
  return `${parent}/${key.network}`;
}
