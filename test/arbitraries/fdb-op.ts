/** Operations on the forwarding databases of bridges. */
import { ownMacs } from '../../model/fdb.ts';
import { type Host, type NetnsName, findLink, getNetns } from '../../model/host.ts';
import type { Link } from '../../model/link.ts';
import { type Mac, ZERO_MAC, parseMac } from '../../model/mac.ts';
import type { Op } from '../../model/op.ts';
import type { Draw } from './draw.ts';
import { linksOf, someHolder } from './names.ts';

/** No link has these, so no bridge ever learns one. */
const FDB_MACS = ['02:00:00:00:00:f0', '02:00:00:00:00:f1', '01:00:5e:00:00:f2'].map(parseMac);

interface Place {
  readonly ifname: Link['ifname'];
  readonly self: boolean;
  /** Addresses for which there is an entry, or may be one. */
  readonly macs: readonly Mac[];
}

function isMember(link: Link): boolean {
  return link.port !== null || link.kind === 'bridge';
}

/** A port or a bridge; now and then a link that is neither. */
function somePlace(netns: NetnsName, host: Host, draw: Draw): Place {
  const ifname = someHolder(host, netns, draw, isMember);
  const link = linksOf(host, netns).find((each) => each.ifname === ifname);
  const self = link?.kind === 'bridge';
  const bridge = self || !link?.port ? link : findLink(host, { netns, ifname: link.port.master });
  const own = bridge?.kind === 'bridge' ? [...ownMacs(getNetns(host, netns), bridge)] : [];
  return { ifname, self, macs: [...FDB_MACS, ...own] };
}

/** An entry, now and then of an address that the bridge has one for. */
export function fdbAdd(netns: NetnsName, host: Host, draw: Draw): Op {
  const { ifname, self, macs } = somePlace(netns, host, draw);
  const mac = draw.oneIn(12) ? ZERO_MAC : draw.of(draw.oneIn(6) ? macs : FDB_MACS);
  const isLocal = self ? !draw.oneIn(6) : draw.oneIn(3);
  return { op: 'fdb.add', netns, ifname, self, mac, state: isLocal ? 'local' : 'static' };
}

/** The address of a link where no other of its bridge has it: of several, only the kernel knows whose the entry is. */
function loneMac(netns: NetnsName, host: Host, ifname: Link['ifname']): readonly Mac[] {
  const links = linksOf(host, netns);
  const link = links.find((each) => each.ifname === ifname);
  const bridge = link?.port?.master ?? ifname;
  const sharing = links.filter(
    (each) => (each.ifname === bridge || each.port?.master === bridge) && each.mac === link?.mac,
  );
  return link && link.mac !== null && sharing.length === 1 ? [link.mac] : [];
}

/** An entry that is there, where there is one; now and then another, or one of the bridge's own. */
export function fdbDel(netns: NetnsName, host: Host, draw: Draw): Op {
  const bridges = linksOf(host, netns).filter((link) => link.kind === 'bridge');
  const entries = bridges.flatMap(({ ifname, fdb }) =>
    (fdb?.entries ?? []).map(({ mac, port }) => ({
      ifname: port ?? ifname,
      self: port === null,
      mac,
    })),
  );
  if (entries.length > 0 && !draw.oneIn(4)) return { op: 'fdb.del', netns, ...draw.of(entries) };
  const { ifname, self } = somePlace(netns, host, draw);
  // No plan takes away what a bridge has by itself.
  const own = draw.oddIn(2) ? loneMac(netns, host, ifname) : [];
  const mac = draw.of([...FDB_MACS, ...own, ...own, ...own]);
  return { op: 'fdb.del', netns, ifname, self, mac };
}
