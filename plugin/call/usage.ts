import type { Ip } from '../../model/ip.ts';
import type { Attachment } from '../attachment.ts';
import { gatewayAddresses } from '../bridge.ts';
import type { AttachmentKey } from '../cni/request.ts';
import { masqueradedSubnets } from '../masquerade.ts';
import { type SharedUse, tablesOf } from '../network.ts';
import { isChecked, spoofTable } from '../spoof-check.ts';
import type { SharedObject, State } from '../state.ts';
import { gatewayRef } from '../vlan.ts';

/** What checks what an attachment sends, for all that the same table checks. */
function checkOf(attachment: Attachment): `check ${string}` {
  return `check ${spoofTable(attachment).family}`;
}

/** A gateway on the link that carries it. */
export function gatewayObject(attachment: Attachment, ip: Ip): SharedObject {
  return `gateway ${gatewayRef(attachment).ifname} ${ip}`;
}

/** The link of a VLAN's gateways. */
function gatewayLinkObjects({ vlans }: Attachment): SharedObject[] {
  return vlans?.gateway ? [`link ${vlans.gateway.ifname}`] : [];
}

/** That the bridge filters VLANs. */
function vlansObject({ bridge }: Attachment): SharedObject {
  return `vlans ${bridge}`;
}

/** The objects that an attachment shares with others. */
export function usesOf(attachment: Attachment): SharedObject[] {
  return [
    ...(attachment.mode === 'ptp' ? [] : [`bridge ${attachment.bridge}` as const]),
    ...gatewayAddresses(attachment).map(({ ip }) => gatewayObject(attachment, ip)),
    ...(attachment.vlans ? [vlansObject(attachment)] : []),
    ...gatewayLinkObjects(attachment),
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
      .filter((ip) => spare.includes(gatewayObject(attachment, ip))),
    vlans: state.isUsedByOthers(vlansObject(attachment), key),
    vlanGateway: gatewayLinkObjects(attachment).some((object) => state.isUsedByOthers(object, key)),
    unusedSubnets: masqueradedSubnets(attachment).filter(
      (prefix) => !state.isUsedByOthers(`subnet ${prefix}`, key),
    ),
    masquerade: state.isAnyUsedByOthers('subnet ', key),
    spoofCheck: state.isUsedByOthers(checkOf(attachment), key),
    tables: tablesOf(attachment).filter((table) => state.isUsedByOthers(`table ${table}`, key)),
  };
}
