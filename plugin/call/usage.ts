import type { Attachment } from '../attachment.ts';
import type { AttachmentKey } from '../cni/request.ts';
import { TABLE_KEY } from '../masquerade.ts';
import { type SharedUse, gatewayAddresses, masqueradedSubnets } from '../network.ts';
import type { SharedObject, State } from '../state.ts';

/** The objects that an attachment shares with others. */
export function usesOf(attachment: Attachment): SharedObject[] {
  return [
    `bridge ${attachment.bridge}`,
    ...gatewayAddresses(attachment).map(({ ip }) => `gateway ${attachment.bridge} ${ip}` as const),
    ...masqueradedSubnets(attachment).map((prefix) => `subnet ${prefix}` as const),
    ...(attachment.masquerade ? [`table ${TABLE_KEY}` as const] : []),
  ];
}

/** The gateways that ADD put on a bridge of somebody else and that only this attachment still uses. */
export function spareGateways(state: State, attachment: Attachment): SharedObject[] {
  return usesOf(attachment).filter(
    (object) =>
      object.startsWith('gateway ') &&
      state.isClaimed(object) &&
      !state.isUsedByOthers(object, attachment.key),
  );
}

/** What others still need of what an attachment uses. */
export function sharedUse(state: State, attachment: Attachment): SharedUse {
  const key: AttachmentKey = attachment.key;
  const spare = spareGateways(state, attachment);
  return {
    bridge: state.isUsedByOthers(`bridge ${attachment.bridge}`, key),
    spareGateways: gatewayAddresses(attachment)
      .map(({ ip }) => ip)
      .filter((ip) => spare.includes(`gateway ${attachment.bridge} ${ip}`)),
    unusedSubnets: masqueradedSubnets(attachment).filter(
      (prefix) => !state.isUsedByOthers(`subnet ${prefix}`, key),
    ),
    table: state.isUsedByOthers(`table ${TABLE_KEY}`, key),
  };
}
