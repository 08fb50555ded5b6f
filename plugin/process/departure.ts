/** Removing what the reference plugins made, with the machine's own programs. */
import type { Ip } from '../../model/ip.ts';
import { type Attachment, formatKey } from '../attachment.ts';
import { bridgeOf } from '../bridge.ts';
import type { CallContext } from '../call/context.ts';
import type { AttachmentKey, Request } from '../cni/request.ts';
import { hostLocalOf } from '../ipam/host-local-folder.ts';
import { type Departure, depart, departureOf } from '../reference/departure.ts';
import { reservations, reservationsOf } from '../reference/host-local.ts';
import { loadPrograms } from '../reference/programs.ts';

/** Has an attachment other than that of `key` the address by now? */
function takenByOthers(
  { state }: CallContext,
  { network, containerId, ifname }: AttachmentKey,
): (ip: Ip) => boolean {
  return (ip) => {
    const owner = state.ownerOf(network, ip);
    return owner !== undefined && formatKey(owner) !== formatKey({ network, containerId, ifname });
  };
}

/** What removes the reference plugins' part of attachments that were taken over. */
export async function makeDepart(
  context: CallContext,
  hostLocal: string,
): Promise<(attachment: Attachment) => void> {
  const run = await loadPrograms();
  return (attachment) => {
    const isTaken = takenByOthers(context, attachment.key);
    depart({ ...context, run }, { ...departureOf(attachment, hostLocal), isTaken });
  };
}

/** DEL of an attachment that the reference plugins made and nobody took over, if `isNamed` or host-local's folder says so. */
export async function departUnrecorded(
  context: CallContext,
  request: Request,
  isNamed: boolean,
): Promise<void> {
  const { config, key, netns } = request;
  const hostLocal = hostLocalOf(request);
  const reserved = reservations(hostLocal).reservations;
  if (!isNamed && reservationsOf(reserved, key.containerId, key.ifname).length === 0) return;
  const departure: Departure = {
    key,
    netns,
    prevResult: config['prevResult'],
    bridge: bridgeOf(config),
    hostLocal,
    isTaken: takenByOthers(context, key),
  };
  depart({ ...context, run: await loadPrograms() }, departure);
}
