/** The VLANs of a bridge and of its ports (net/bridge/br_vlan.c; docs/kernel-rules.md, K-6.6). */

/** VLANs that a port, or the bridge itself, is a member of: all from `first` to `last`, with these marks. */
export interface VlanRange {
  /** From 1 to 4094, as is `last`. */
  readonly first: number;
  readonly last: number;
  /** Frames that come in without a tag are of this VLAN: of one VLAN at most, so that `first` is `last`. */
  readonly pvid: boolean;
  /** Frames leave without a tag. */
  readonly untagged: boolean;
}

/** What a bridge has of VLANs where the kernel knows them (CONFIG_BRIDGE_VLAN_FILTERING). */
export interface BridgeVlans {
  /** Do frames pass only between members of their VLAN? Until then all of this is there, and of no effect. */
  readonly filtering: boolean;
  /** The VLAN that ports get when they join, as pvid and untagged; 0 for none. */
  readonly defaultPvid: number;
  /** The bridge's own, by which its netns takes part. */
  readonly own: readonly VlanRange[];
}

/** Which VLANs there are to be a member of: 0 stands for none, 4095 is reserved (IEEE 802.1Q, table 9-2). */
export const VLAN_ID_MIN = 1;
export const VLAN_ID_MAX = 4094;

/** One VLAN. */
export function vlan(
  id: number,
  marks: Partial<Pick<VlanRange, 'pvid' | 'untagged'>> = {},
): VlanRange {
  return { first: id, last: id, pvid: false, untagged: false, ...marks };
}

/** Sorted, and with neighbours of the same marks as one: equal sets of VLANs have one form. */
function normalized(ranges: readonly VlanRange[]): VlanRange[] {
  const merged: VlanRange[] = [];
  for (const range of ranges.toSorted((a, b) => a.first - b.first)) {
    const before = merged.at(-1);
    if (
      before &&
      before.last + 1 === range.first &&
      before.untagged === range.untagged &&
      !before.pvid &&
      !range.pvid
    )
      merged[merged.length - 1] = { ...before, last: range.last };
    else merged.push(range);
  }
  return merged;
}

/** The VLANs without those from `first` to `last`. */
export function withoutVlans(
  ranges: readonly VlanRange[],
  first: number,
  last: number,
): readonly VlanRange[] {
  return normalized(
    ranges.flatMap((range) => [
      ...(range.first < first ? [{ ...range, last: Math.min(range.last, first - 1) }] : []),
      ...(range.last > last ? [{ ...range, first: Math.max(range.first, last + 1) }] : []),
    ]),
  );
}

/** The VLANs with these: marks that they had are replaced, and a new pvid takes the place of the old one. */
export function withVlans(ranges: readonly VlanRange[], added: VlanRange): readonly VlanRange[] {
  const others = withoutVlans(ranges, added.first, added.last);
  const kept = added.pvid ? others.map((range) => ({ ...range, pvid: false })) : others;
  return normalized([...kept, added]);
}

/** Any ranges in the form that equal sets of VLANs share. */
export function vlansOf(ranges: readonly VlanRange[]): readonly VlanRange[] {
  return ranges.reduce<readonly VlanRange[]>(withVlans, []);
}

/** The marks of a VLAN among these, undefined when it is not there. */
export function findVlan(ranges: readonly VlanRange[], id: number): VlanRange | undefined {
  return ranges.find(({ first, last }) => first <= id && id <= last);
}

/** The VLAN of frames that come in without a tag; undefined: they are dropped. */
export function pvidOf(ranges: readonly VlanRange[]): number | undefined {
  return ranges.find(({ pvid }) => pvid)?.first;
}

/** The VLANs that a bridge is made with (net/bridge/br_vlan.c, br_vlan_init). */
export const FRESH_BRIDGE_VLANS: BridgeVlans = {
  filtering: false,
  defaultPvid: 1,
  own: [vlan(1, { pvid: true, untagged: true })],
};

/** The VLANs with which a port joins a bridge (nbp_vlan_init). */
export function joiningVlans({ defaultPvid }: BridgeVlans): readonly VlanRange[] {
  return defaultPvid === 0 ? [] : [vlan(defaultPvid, { pvid: true, untagged: true })];
}

/** `100`, `200-299`, and as iproute2 says them the marks. */
export function formatVlan({ first, last, pvid, untagged }: VlanRange): string {
  const ids = first === last ? `${first}` : `${first}-${last}`;
  return `${ids}${pvid ? ' pvid' : ''}${untagged ? ' untagged' : ''}`;
}
