/** What people call the two ends of a trace, looked up in a host. */
import { type Host, HOST_NETNS, type NetnsName, findLink } from '../../model/host.ts';
import { type Ip, findIp } from '../../model/ip.ts';
import { type Link, type LinkRef, OWNER_MARK } from '../../model/link.ts';

/** Where a probe starts: a netns, and the address that it comes from where one was named. */
export interface Origin {
  readonly netns: NetnsName;
  readonly source?: Ip;
}

/** Where it goes. */
export interface Target {
  readonly destination: Ip;
  /** Absent: an echo. */
  readonly to?: { readonly protocol: 'udp' | 'tcp'; readonly port: number };
}

const PORTED = /^(?:\[([^\]]+)\]|([^[\]:]+)):(\d+)\/([a-z]+)$/;

/** Reads `ADDRESS`, or `ADDRESS:PORT/tcp` and `/udp`, an IPv6 address with a port in brackets. Throws with what would be right. */
export function parseTarget(text: string): Target {
  const alone = findIp(text);
  if (alone !== undefined) return { destination: alone };
  const [, in6, in4, digits = '', protocol = ''] = PORTED.exec(text) ?? [];
  const destination = findIp(in6 ?? in4 ?? '');
  const port = Number(digits);
  if (destination === undefined || (in6 !== undefined) !== destination.includes(':'))
    throw new Error(
      `"${text}" is no destination: give an address, or like 10.0.0.1:80/tcp or [fd00::1]:53/udp an address, a port and a protocol`,
    );
  if (protocol !== 'tcp' && protocol !== 'udp')
    throw new Error(`"${text}" has the protocol "${protocol}", which is neither tcp nor udp`);
  if (port < 1 || port > 65_535)
    throw new Error(`"${text}" has the port ${digits}: ports are 1 to 65535`);
  return { destination, to: { protocol, port } };
}

interface Candidate extends Origin {
  readonly what: string;
}

/** Containers of this machine that a name may mean, beside those in the host that is asked. */
export interface KnownContainers {
  readonly containers: readonly {
    readonly id: string;
    /** The files of its runtime that say so. */
    readonly folder: string;
    /** The name in the host of its netns; undefined where none of its processes runs. */
    readonly netns: NetnsName | undefined;
  }[];
  /** Where they were looked for. */
  readonly lookedIn: readonly string[];
}

function allLinks(host: Host): (LinkRef & { readonly link: Link })[] {
  return Object.entries(host.netns).flatMap(([netns, { links }]) =>
    Object.values(links).map((link) => ({ netns, ifname: link.ifname, link })),
  );
}

/** The far end of a pod's link on the host, which is what people mean who name that. */
function behind(host: Host, { netns, ifname, link }: LinkRef & { readonly link: Link }): LinkRef {
  const isHostEnd =
    link.kind === 'veth' && netns === HOST_NETNS && link.addresses.length === 0 && link.peer;
  return isHostEnd && link.peer && findLink(host, link.peer) ? link.peer : { netns, ifname };
}

/** Does the alias of a host end name the container? It is our mark, and then network, container and link. */
function isOfContainer({ alias }: Link, id: string): boolean {
  const [mark, key = ''] = alias.split(' ');
  return mark === OWNER_MARK && key.split('/')[1] === id;
}

function isSameOrigin(a: Origin, b: Origin): boolean {
  return a.netns === b.netns && a.source === b.source;
}

/** Why a name means nothing. */
function absence(text: string, { containers, lookedIn }: KnownContainers): string {
  const [ended] = containers;
  if (ended)
    return `the container ${ended.id} (${ended.folder}) has no process that runs, and no network namespace that is left`;
  const places =
    lookedIn.length === 0 ? '' : `; files of containers were looked for in ${lookedIn.join(', ')}`;
  return (
    `"${text}" is no network namespace, address, container or link that is there: ` +
    `give a name under /run/netns or a path, an address, a container id or the name of a link${places}`
  );
}

/**
 * The origin that a name means: a netns by its name or path, an address, a container by its id, a link by its name. Throws
 * where nothing has that name, and where several things have.
 */
export function findOrigin(
  host: Host,
  text: string,
  known: KnownContainers = { containers: [], lookedIn: [] },
): Origin {
  if (Object.hasOwn(host.netns, text)) return { netns: text };
  const ip = findIp(text);
  const links = allLinks(host);
  const found: Candidate[] = [
    ...links
      .filter(({ link }) => link.addresses.some((each) => each.ip === ip))
      .map(({ netns, ifname }) => ({
        netns,
        ...(ip === undefined ? {} : { source: ip }),
        what: `the address of ${ifname} in netns ${netns}`,
      })),
    ...links
      .filter(({ link }) => isOfContainer(link, text))
      .map((each) => ({
        netns: behind(host, each).netns,
        what: `the container behind ${each.ifname}`,
      })),
    ...known.containers.flatMap(({ id, folder, netns }) =>
      // It may have gone since.
      netns === undefined || !Object.hasOwn(host.netns, netns)
        ? []
        : [{ netns, what: `the container ${id} (${folder})` }],
    ),
    ...links
      .filter(({ ifname, link }) => ifname === text || link.altnames?.includes(text))
      .map((each) => ({ netns: behind(host, each).netns, what: `a link in netns ${each.netns}` })),
  ];
  const [first, ...others] = found;
  if (!first) throw new Error(absence(text, known));
  const other = others.find((each) => !isSameOrigin(each, first));
  if (other)
    throw new Error(
      `"${text}" is ${first.what} and ${other.what}: name the network namespace instead`,
    );
  const { netns, source } = first;
  return source === undefined ? { netns } : { netns, source };
}
