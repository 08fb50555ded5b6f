/** Vxlans between two pods that are hosts of their own. */
import { TUNNEL_TARGET, flood, tunnel, tunnelNeighbour } from '../sim/tunnels.ts';
import type { BrokenHost } from './broken-host.ts';

export const BROKEN_TUNNELS: readonly BrokenHost[] = [
  {
    name: 'a vxlan was not told where a neighbour is',
    ops: [
      ...tunnel('a', { learning: false }),
      ...tunnel('c', { learning: false }),
      tunnelNeighbour('a'),
      tunnelNeighbour('c'),
      flood('c'),
    ],
    trace: { from: 'a', to: TUNNEL_TARGET },
    check: 'error',
    guilty: ['a', 'link vx0'],
  },
  {
    name: 'a vxlan has a larger MTU than the link below has room for',
    ops: [...tunnel('a', { mtuBytes: 1500 }), flood('a')],
    check: 'warning',
    guilty: ['a', 'link vx0'],
  },
];
