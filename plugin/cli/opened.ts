import type { CallContext } from '../call/context.ts';
import type { Request } from '../cni/request.ts';

/** What a command gets from the command line. */
export interface Opened {
  /** The surroundings of a call like this one: to look at the network, or to change it. */
  readonly open: (
    request: Request,
    flags: { readonly cniPath: string },
    purpose: 'look' | 'change',
  ) => Promise<CallContext>;
}
