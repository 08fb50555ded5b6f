import type { SysctlKey } from '../../model/host.ts';
import { type Ip, familyOf } from '../../model/ip.ts';
import { type Attachment, formatKey } from '../attachment.ts';
import { gatewayAddresses } from '../bridge.ts';
import type { AttachmentKey } from '../cni/request.ts';
import { type HostPort, leadsFromLocalhost, sourceSubnets } from '../host-port.ts';
import { policedLink } from '../ingress-policy.ts';
import { masqueradedSubnets } from '../masquerade.ts';
import { type SharedUse, hearingLink, tablesOf } from '../network.ts';
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

/** A port of this host; all that could be in its way begin with the same words. */
export function portWords({ protocol, port, podIp }: HostPort): `port ${string} ` {
  return `port ${familyOf(podIp)} ${protocol} ${port} `;
}

/** What leads to an attachment's host ports. */
function portObjects(attachment: Attachment): SharedObject[] {
  const { hostPorts } = attachment;
  if (!hostPorts) return [];
  return [
    ...hostPorts.ports.map((each) => `${portWords(each)}${each.hostIp ?? '*'}` as const),
    ...doorObjects(attachment),
    ...sourceSubnets(attachment).map((prefix) => `snat ${prefix}` as const),
    ...(hostPorts.sourceNat === 'all' ? [ALL_SOURCES] : []),
    ...(leadsFromLocalhost(attachment) ? [localhostObject(attachment)] : []),
  ];
}

/** The door to an attachment's host ports, unless it is the default one, of which records of older versions do not tell. */
function doorObjects({ hostPorts }: Attachment): SharedObject[] {
  return hostPorts?.door ? [`door ${hostPorts.door.name}`] : [];
}

/** Has another attachment host ports behind the same door? */
function isDoorUsedByOthers(state: State, attachment: Attachment): boolean {
  const { key, hostPorts } = attachment;
  if (!hostPorts) return false;
  const [named] = doorObjects(attachment);
  if (named !== undefined) return state.isUsedByOthers(named, key);
  // Who has ports and no other door is behind the default one.
  const elsewhere = new Set(state.othersUsing('door ', key).map(({ user }) => formatKey(user)));
  if (elsewhere.size === 0) return state.isAnyUsedByOthers('port ', key);
  return state.othersUsing('port ', key).some(({ user }) => !elsewhere.has(formatKey(user)));
}

const ALL_SOURCES: SharedObject = 'snat all';

/** That the link to the pods takes packets for 127.0.0.0/8. */
export function localhostObject(attachment: Attachment): SharedObject {
  return `localhost ${hearingLink(attachment)}`;
}

/** That a link's pods have a policy, and that they reach each other all the same. */
function policyObjects(attachment: Attachment): SharedObject[] {
  const { ingressPolicy } = attachment;
  if (ingressPolicy === undefined) return [];
  return [
    policedObject(attachment),
    ...(ingressPolicy === 'same-bridge' ? [sameObject(attachment)] : []),
  ];
}

function policedObject(attachment: Attachment): SharedObject {
  return `policy ${policedLink(attachment)}`;
}

function sameObject(attachment: Attachment): SharedObject {
  return `policy ${policedLink(attachment)} same-bridge`;
}

/** That tables of others let through what the pods behind a link send and are sent. */
function forwardObject(attachment: Attachment): SharedObject {
  return `forward ${hearingLink(attachment)}`;
}

/** A setting of a pod's netns with its value, which attachments of the same pod may share. */
function sysctlObject({ netns, tuning }: Attachment, key: SysctlKey): SharedObject {
  return `sysctl ${netns} ${key} ${tuning?.sysctls?.[key] ?? ''}`;
}

function sysctlKeys({ tuning }: Attachment): SysctlKey[] {
  return Object.keys(tuning?.before ?? {});
}

/** The group of links that are deleted at once. */
export function groupObjects({ bandwidth }: Attachment): SharedObject[] {
  const group = bandwidth?.ifb?.group;
  return group === undefined ? [] : [`group ${group}`];
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
    ...portObjects(attachment),
    ...policyObjects(attachment),
    ...(attachment.adoptForward ? [forwardObject(attachment)] : []),
    ...sysctlKeys(attachment).map((each) => sysctlObject(attachment, each)),
    ...groupObjects(attachment),
    ...tablesOf(attachment).map((key) => `table ${key}` as const),
  ];
}

/** What ADD did to a link of somebody else and only this attachment still needs: gateways on it, and the door to 127.0.0.0/8. */
export function spareClaims(state: State, attachment: Attachment): SharedObject[] {
  return usesOf(attachment).filter(
    (object) =>
      (object.startsWith('gateway ') || object.startsWith('localhost ')) &&
      state.isClaimed(object) &&
      !state.isUsedByOthers(object, attachment.key),
  );
}

/** What others still need of what an attachment uses. */
export function sharedUse(state: State, attachment: Attachment): SharedUse {
  const key: AttachmentKey = attachment.key;
  const spare = spareClaims(state, attachment);
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
    policy: {
      any: state.isAnyUsedByOthers('policy ', key),
      link: state.isUsedByOthers(policedObject(attachment), key),
      sameBridge: state.isUsedByOthers(sameObject(attachment), key),
    },
    forward: state.isUsedByOthers(forwardObject(attachment), key),
    sysctls: sysctlKeys(attachment).filter((each) =>
      state.isUsedByOthers(sysctlObject(attachment, each), key),
    ),
    ports: {
      any: state.isAnyUsedByOthers('port ', key),
      door: isDoorUsedByOthers(state, attachment),
      allSources: state.isUsedByOthers(ALL_SOURCES, key),
      unusedSubnets: sourceSubnets(attachment).filter(
        (prefix) => !state.isUsedByOthers(`snat ${prefix}`, key),
      ),
      spareLocalhost:
        state.isClaimed(localhostObject(attachment)) &&
        !state.isUsedByOthers(localhostObject(attachment), key),
    },
    tables: tablesOf(attachment).filter((table) => state.isUsedByOthers(`table ${table}`, key)),
  };
}
