import { HOST_NETNS } from '../../model/host.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { CallContext } from './context.ts';

/** Refuses the netns that the plugin itself is in: the runtime must have meant another. */
export function checkNetns(context: Pick<CallContext, 'isOwnNetns'>, netns: string): void {
  // `host` is what the model calls it.
  if (netns === HOST_NETNS || context.isOwnNetns(netns)) {
    throw new CniError(
      CNI_ERROR.invalidNetns,
      "plugin's netns and netns from CNI_NETNS should not be the same",
      netns,
    );
  }
}
