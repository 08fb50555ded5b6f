import type { Attachment } from '../attachment.ts';
import { gatewayAddresses } from '../bridge.ts';
import type { AttachmentKey } from '../cni/request.ts';
import { masqueradedSubnets } from '../masquerade.ts';
import { type SharedUse, tablesOf } from '../network.ts';
import { isChecked, spoofTable } from '../spoof-check.ts';
import type { SharedObject, State } from '../state.ts';

/** What checks what an attachment sends, for all that the same table checks. */
function checkOf(attachment: Attachment): `check ${string}` {
  return `check ${spoofTable(attachment).family}`;
}

/** The objects that an attachment shares with others. */
export function usesOf(attachment: Attachment): SharedObject[] {
  return [
    ...(attachment.mode === 'ptp' ? [] : [`bridge ${attachment.bridge}` as const]),
    ...gatewayAddresses(attachment).map(({ ip }) => `gateway ${attachment.bridge} ${ip}` as const),
    ...masqueradedSubnets(attachment).map((prefix) => `subnet ${prefix}` as const),
    ...(isChecked(attachment) ? [checkOf(attachment)] : []),
    ...tablesOf(attachment).map((key) => `table ${key}` as const),
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
    masquerade: state.isAnyUsedByOthers('subnet ', key),
    spoofCheck: state.isUsedByOthers(checkOf(attachment), key),
    tables: tablesOf(attachment).filter((table) => state.isUsedByOthers(`table ${table}`, key)),
  };
}
