/** Programs name netns `one` and `two`; on the machine each run has netns of its own. */
import type { Host, Netns, NetnsName } from '../../model/host.ts';
import type { Link, LinkRef } from '../../model/link.ts';
import type { Op } from '../../model/op.ts';

/** The two names of every netns of a run. */
export interface Places {
  readonly real: (name: NetnsName) => NetnsName;
  readonly logical: (name: NetnsName) => NetnsName;
}

/** What the names of all netns begin with that programs run in. */
export const OWN_PREFIX = 'cube-fz-';

let runs = 0;

/** The process that made a netns of ours, by its name. */
export function pidOf(name: NetnsName): number {
  return Number(name.slice(OWN_PREFIX.length).split('-')[0]);
}

/** Names that no other run has, of this process or another. */
export function makePlaces(universe: readonly NetnsName[]): Places {
  runs += 1;
  const prefix = `${OWN_PREFIX}${process.pid}-${runs}`;
  const real = new Map(universe.map((name) => [name, `${prefix}-${name}`]));
  const logical = new Map([...real].map(([name, there]) => [there, name]));
  return {
    real: (name) => real.get(name) ?? name,
    logical: (name) => logical.get(name) ?? name,
  };
}

/** The operation as it is carried out. */
export function placeOp(op: Op, { real }: Places): Op {
  if (op.op === 'link.add' && op.link.kind === 'veth') {
    const peer = { ...op.link.peer, netns: real(op.link.peer.netns) };
    return { ...op, netns: real(op.netns), link: { ...op.link, peer } };
  }
  if (op.op === 'link.move') return { ...op, netns: real(op.netns), toNetns: real(op.toNetns) };
  return { ...op, netns: real(op.netns) };
}

function unplaceLink(placed: Link, logical: Places['logical']): Link {
  const unplace = (ref: LinkRef): LinkRef => ({ ...ref, netns: logical(ref.netns) });
  const link = placed.uppers ? { ...placed, uppers: placed.uppers.map(unplace) } : placed;
  if (link.kind === 'macvlan' && link.lower) return { ...link, lower: unplace(link.lower) };
  if (link.kind === 'veth' && link.peer) return { ...link, peer: unplace(link.peer) };
  return link.kind === 'vxlan' && link.underlay !== null
    ? { ...link, underlay: logical(link.underlay) }
    : link;
}

/** The host with other names of its netns. */
export function called(host: Host, logical: Places['logical']): Host {
  const netns = Object.entries(host.netns).map(([name, state]): [string, Netns] => {
    const links = Object.entries(state.links).map(([ifname, link]) => [
      ifname,
      unplaceLink(link, logical),
    ]);
    return [logical(name), { ...state, links: Object.fromEntries(links) }];
  });
  return { ...host, netns: Object.fromEntries(netns) };
}

/** What was read, with the names of the program. */
export function unplaceHost(host: Host, { logical }: Places): Host {
  return called(host, logical);
}
