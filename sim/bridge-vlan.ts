/** VLANs in a bridge that filters: which one a frame is of, and who is a member (net/bridge/br_vlan.c; K-6.6). */
import type { BridgeLink, Link } from '../model/link.ts';
import { type VlanRange, findVlan, pvidOf } from '../model/vlan.ts';
import type { Frame } from './frame.ts';

/** The VLAN of frames in a bridge that does not filter, which then looks at no tag. */
const NO_VLAN = 0;

/** A frame as it is in a bridge: its VLAN beside it, and where the bridge filters without its tag. */
export interface Classified {
  readonly vlan: number;
  readonly frame: Frame;
}

function filters(bridge: BridgeLink): boolean {
  return bridge.vlans?.filtering === true;
}

/** The VLANs of a port, or of the bridge itself. */
function rangesOf(bridge: BridgeLink, port: Link | null): readonly VlanRange[] {
  return (port === null ? bridge.vlans?.own : port.port?.vlans) ?? [];
}

/** Is the port, or the bridge itself, a member of the VLAN? */
export function isMember(bridge: BridgeLink, port: Link | null, vlan: number): boolean {
  return vlan === NO_VLAN || findVlan(rangesOf(bridge, port), vlan) !== undefined;
}

/** What a frame is that comes in by a port, or null: from the bridge itself. Undefined: it may not come in (br_allowed_ingress). */
export function classify(
  bridge: BridgeLink,
  port: Link | null,
  frame: Frame,
): Classified | undefined {
  if (!filters(bridge)) return { vlan: NO_VLAN, frame };
  const { tag, ...untagged } = frame;
  const vlan = tag ?? pvidOf(rangesOf(bridge, port));
  return vlan === undefined || !isMember(bridge, port, vlan)
    ? undefined
    : { vlan, frame: untagged };
}

/** The frame as it leaves by a port, or null: goes up to the bridge's own netns (br_handle_vlan). */
export function leaving(bridge: BridgeLink, port: Link | null, { vlan, frame }: Classified): Frame {
  if (vlan === NO_VLAN) return frame;
  return findVlan(rangesOf(bridge, port), vlan)?.untagged === false
    ? { ...frame, tag: vlan }
    : frame;
}

/** Why a frame may not come in, in words. */
export function ingressText(port: string, { tag }: Frame): string {
  return tag === undefined
    ? `${port} has no VLAN for frames without a tag`
    : `${port} is no member of VLAN ${tag}`;
}
