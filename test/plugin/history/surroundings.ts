/** A node as it is asked who reaches whom: without the tables of others, and with somebody outside who knows the way to its pods. */
import { makeAddress } from '../../../model/address.ts';
import { HOST_NETNS, type Host, findLink, getNetns, withNetns } from '../../../model/host.ts';
import type { Ifname } from '../../../model/ifname.ts';
import { type Family, type Ip, familyOf, parseIp } from '../../../model/ip.ts';
import { OWNER_MARK } from '../../../model/link.ts';
import type { Op } from '../../../model/op.ts';
import { applyOp } from '../../../model/ops.ts';
import { DEFAULT_PREFIX, parsePrefixedIp } from '../../../model/prefix.ts';
import { makeRoute } from '../../../model/route.ts';
import { OUTSIDE_NETNS, withOutside } from '../../../sim/outside.ts';

const UPLINK = { netns: HOST_NETNS, ifname: 'uplink' as Ifname };

/** The node's own address on its uplink, and the router there. */
const OWN: Readonly<Record<Family, { readonly address: string; readonly router: Ip }>> = {
  4: { address: '100.64.77.2/24', router: parseIp('100.64.77.1') },
  6: { address: 'fd77::2/64', router: parseIp('fd77::1') },
};

/** What the outside sees of what a pod sends where its source is replaced. */
export function uplinkIp(family: Family): Ip {
  return parsePrefixedIp(OWN[family].address).ip;
}

/** The host without rules of others: whether those let a packet through no configuration says. */
function withoutForeignTables(host: Host): Host {
  return Object.entries(host.netns).reduce(
    (all, [name, netns]) =>
      withNetns(all, name, {
        ...netns,
        nftables: Object.fromEntries(
          Object.entries(netns.nftables).filter(([, table]) => table.name === OWNER_MARK),
        ),
      }),
    host,
  );
}

/**
 * The host with link-local addresses where it forwards IPv6: without one it does not ask for a neighbour on behalf of others
 * (net/ipv6/ndisc.c, ndisc_send_ns), and links of histories have none.
 */
function withLinkLocal(host: Host): Host {
  const links = Object.values(getNetns(host, HOST_NETNS).links);
  return links
    .filter(({ addresses }) => addresses.some(({ ip }) => familyOf(ip) === 6))
    .reduce((all, link, index) => {
      const { ip, prefixLength } = parsePrefixedIp(`fe80::77:${index + 1}/64`);
      const address = makeAddress({ ip, prefixLength, scope: 'link' });
      const ref = { netns: HOST_NETNS, ifname: link.ifname };
      return after(all, [{ op: 'address.add', ...ref, address }]) ?? all;
    }, host);
}

function after(host: Host, ops: readonly Op[]): Host | undefined {
  let state = host;
  for (const op of ops) {
    const outcome = applyOp(state, op);
    if (!outcome.ok) return undefined;
    state = outcome.host;
  }
  return state;
}

/** The host with an address, a default route and a router on its uplink, which knows that pods are behind that address. */
function withWayOut(host: Host, family: Family): Host | undefined {
  const { address, router } = OWN[family];
  const destination = DEFAULT_PREFIX[family];
  const reachable = after(host, [
    { op: 'address.add', ...UPLINK, address: makeAddress(parsePrefixedIp(address)) },
    {
      op: 'route.add',
      netns: HOST_NETNS,
      route: makeRoute({ destination, gateway: router, device: UPLINK.ifname }),
    },
  ]);
  const surrounded = reachable && withOutside(withLinkLocal(reachable), HOST_NETNS, family);
  const device = surrounded && Object.keys(getNetns(surrounded.host, OUTSIDE_NETNS).links).at(-1);
  if (!surrounded || device === undefined) return undefined;
  return after(surrounded.host, [
    {
      op: 'route.add',
      netns: OUTSIDE_NETNS,
      route: makeRoute({ destination, gateway: uplinkIp(family), device: device as Ifname }),
    },
  ]);
}

/** The host of a node as it is asked about a family. */
export interface Surroundings {
  readonly host: Host;
  /** False where the uplink is not as it was, so that nothing can be asked about the outside. */
  readonly hasOutside: boolean;
}

/** The node's host as it is asked about a family; `initial` has the uplink as it was at first. */
export function surroundingsOf(
  host: Host,
  shadow: Host,
  initial: Host,
  family: Family,
): Surroundings {
  const plain = withoutForeignTables(host);
  const isAsItWas =
    JSON.stringify(findLink(shadow, UPLINK)) === JSON.stringify(findLink(initial, UPLINK));
  const joined = isAsItWas ? withWayOut(plain, family) : undefined;
  return { host: joined ?? withLinkLocal(plain), hasOutside: joined !== undefined };
}
