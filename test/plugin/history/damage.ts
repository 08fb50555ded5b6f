/**
 * Damages that others do to what is ours, each with what CHECK has to say of it: the thing itself in words written here, and
 * what the kernel took along with it, as far as the attachment had it, by comparing before and after.
 */
import { makeAddress } from '../../../model/address.ts';
import { hostPrefix } from '../../../model/connected.ts';
import {
  HOST_NETNS,
  type Host,
  type Netns,
  type NetnsName,
  findLink,
  findNetns,
  getNetns,
} from '../../../model/host.ts';
import { type Link, type LinkRef, OWNER_MARK, isOurs } from '../../../model/link.ts';
import { parseMac } from '../../../model/mac.ts';
import { type Table, tableKey } from '../../../model/nftables.ts';
import type { Op } from '../../../model/op.ts';
import { applyOp } from '../../../model/ops.ts';
import { describeRoute } from '../../../model/ops/route-add.ts';
import { formatPrefixedIp, parsePrefix, parsePrefixedIp } from '../../../model/prefix.ts';
import { PROTOCOL_BOOT, PROTOCOL_CUBE, makeRoute } from '../../../model/route.ts';
import { formatBucket } from '../../../model/traffic-control.ts';
import type { Attachment } from '../../../plugin/attachment.ts';
import { commentOf } from '../../../plugin/table.ts';

/** One damage. */
export interface Damage {
  readonly name: string;
  readonly ops: readonly Op[];
  /** What is broken by it, as `NETNS TEXT`. */
  readonly findings: readonly string[];
  /** Is the link by then nobody's that DEL would know? Then only a mended one can be left to DEL. */
  readonly disowns: boolean;
  /** Does something go with all that is in it? Then CHECK says more. */
  readonly isWhole: boolean;
  /** May others have lost something by it too? Then mending one attachment does not mend them. */
  readonly isShared: boolean;
}

/** What somebody does, and what CHECK says of that alone. */
interface Deed {
  readonly name: string;
  readonly ops: readonly Op[];
  readonly words: readonly string[];
  readonly disowns?: true;
  readonly isWhole?: true;
  readonly isShared?: true;
}

const OTHER_MAC = parseMac('02:00:00:00:77:77');
const OTHER_MTU_BYTES = 1333;

function gatewayIps({ addresses }: Attachment): Set<string> {
  return new Set(addresses.flatMap(({ gateway }) => (gateway === null ? [] : [gateway])));
}

/** Addresses and routes of the attachment in a netns, as CHECK would name them when they are missing. */
function possessions(host: Host, name: NetnsName, attachment: Attachment): string[] {
  const netns = findNetns(host, name);
  if (!netns) return [];
  const isForwarded = attachment.gateway || attachment.mode === 'ptp';
  const own = new Set<string>([
    ...attachment.addresses.map(({ ip }) => ip),
    ...(isForwarded ? gatewayIps(attachment) : []),
  ]);
  const links = Object.values(netns.links);
  const addresses = links.flatMap(({ ifname, addresses: all }) =>
    all
      .filter(({ ip }) => own.has(ip))
      .map((a) => `${name} link "${ifname}": address ${formatPrefixedIp(a)} is missing`),
  );
  const mine: readonly string[] = [attachment.key.ifname, attachment.hostIfname];
  const routes = netns.routes
    .filter(({ protocol, device }) => protocol === PROTOCOL_CUBE && mine.includes(device ?? ''))
    .map((route) => `${name} route ${describeRoute(route)} is missing`);
  return [...addresses, ...routes];
}

/** Settings of a link that goes, as far as they are not what the next one of that name would begin with. */
function lostSettings(before: Host, after: Host, { netns, ifname }: LinkRef): string[] {
  const had = getNetns(before, netns).sysctls;
  const has = findNetns(after, netns)?.sysctls ?? {};
  return Object.keys(had).flatMap((key) => {
    const [, , , of, name] = key.split('/');
    if (of !== ifname || Object.hasOwn(has, key)) return [];
    const next = has[key.replace(`/${ifname}/`, '/default/')];
    return next === had[key] || name === undefined
      ? []
      : [`${netns} sysctl ${key} is missing, should be ${had[key]}`];
  });
}

function setLink(ref: LinkRef, set: Extract<Op, { op: 'link.set' }>['set']): Op {
  return { op: 'link.set', ...ref, set };
}

/** What can be done to a link that is the attachment's own, an end of its veth or the ifb. */
function linkDeeds(link: Link, ref: LinkRef): Deed[] {
  const { netns, ifname } = ref;
  const at = `${netns} link "${ifname}"`;
  const deeds: Deed[] = [];
  if (link.up)
    deeds.push({
      name: `${ifname} is set down`,
      ops: [setLink(ref, { up: false })],
      words: [`${at}: is down, should be up`],
    });
  if (link.mtuBytes !== OTHER_MTU_BYTES && link.kind === 'veth')
    deeds.push({
      name: `${ifname} has another MTU`,
      ops: [setLink(ref, { mtuBytes: OTHER_MTU_BYTES })],
      words: [`${at}: mtu is ${OTHER_MTU_BYTES}, should be ${link.mtuBytes}`],
    });
  if (link.kind === 'veth')
    deeds.push({
      name: `${ifname} has another MAC address`,
      ops: [setLink(ref, { mac: OTHER_MAC })],
      words: [`${at}: address is ${OTHER_MAC}, should be ${link.mac}`],
      disowns: true,
    });
  if (link.alias !== '')
    deeds.push({
      name: `${ifname} has another alias`,
      ops: [setLink(ref, { alias: 'somebody' })],
      words: [`${at}: alias is "somebody", should be "${link.alias}"`],
      disowns: true,
    });
  for (const [attribute, words] of [
    ['promiscuous', 'promiscuous mode'],
    ['allMulticast', 'all-multicast mode'],
  ] as const)
    if (link[attribute] === true)
      deeds.push({
        name: `${ifname} is in no ${words}`,
        ops: [
          setLink(
            ref,
            attribute === 'promiscuous' ? { promiscuous: false } : { allMulticast: false },
          ),
        ],
        words: [`${at}: ${words} is off, should be on`],
      });
  if (link.port) {
    const { hairpin, isolated } = link.port;
    for (const [flag, on] of Object.entries({ hairpin, isolated }))
      deeds.push({
        name: `${ifname} has ${flag} ${on ? 'off' : 'on'}`,
        ops: [{ op: 'port.set', ...ref, flag: flag as 'hairpin' | 'isolated', on: !on }],
        words: [
          `${netns} bridge port "${ifname}": ${flag} is ${on ? 'off' : 'on'}, should be ${on ? 'on' : 'off'}`,
        ],
      });
  }
  const { root, ingress } = link.trafficControl ?? {};
  if (root?.kind === 'tbf')
    deeds.push({
      name: `${ifname} is not limited`,
      ops: [{ op: 'qdisc.del', ...ref, at: 'root' }],
      words: [`${at}: what leaves is not limited, should be ${formatBucket(root)}`],
    });
  if (ingress?.redirect)
    deeds.push({
      name: `what comes in by ${ifname} is not redirected`,
      ops: [{ op: 'filter.del', ...ref }],
      words: [`${at}: what comes in is not redirected, should be to ${ingress.redirect}`],
    });
  return deeds;
}

/** A veth that goes, at either of its ends. */
function removal(ref: LinkRef, attachment: Attachment): Deed {
  const { hostIfname, key, netns } = attachment;
  return {
    name: `${ref.ifname} goes`,
    ops: [{ op: 'link.del', ...ref }],
    words: [
      `${HOST_NETNS} link "${hostIfname}" is missing`,
      `${netns} link "${key.ifname}" is missing`,
    ],
  };
}

/** The ifb that goes, to which the host's end redirects. */
function ifbRemoval({ hostIfname, bandwidth }: Attachment): Deed[] {
  const ifname = bandwidth?.ifb?.ifname;
  if (ifname === undefined) return [];
  return [
    {
      name: `${ifname} goes`,
      ops: [{ op: 'link.del', netns: HOST_NETNS, ifname }],
      words: [
        `${HOST_NETNS} link "${ifname}" is missing`,
        `${HOST_NETNS} link "${hostIfname}": what comes in is redirected to a link that is gone, should be to ${ifname}`,
      ],
    },
  ];
}

/** What is on the host's link that carries the gateways, where it is ours. */
function carrierDeeds(host: Host, attachment: Attachment): Deed[] {
  const { bridge, mode, gateway, vlans } = attachment;
  const ifname = vlans?.gateway?.ifname ?? bridge;
  const ref = { netns: HOST_NETNS, ifname };
  const link = findLink(host, ref);
  if (mode === 'ptp' || !link || !isOurs(link)) return [];
  const own = gateway ? gatewayIps(attachment) : new Set<string>();
  return [
    {
      name: `${ifname} is set down`,
      ops: [setLink(ref, { up: false })],
      words: link.up ? [`${HOST_NETNS} link "${ifname}": is down, should be up`] : [],
      // The gateways of other networks, too.
      isShared: true,
    },
    ...link.addresses
      .filter(({ ip }) => own.has(ip))
      .map((address) => ({
        name: `${ifname} loses ${address.ip}`,
        ops: [{ op: 'address.del' as const, ...ref, address }],
        words: [],
      })),
  ];
}

/** What goes with all that is in it. */
function wholeDeeds(host: Host, { bridge, mode, hostIfname, addresses }: Attachment): Deed[] {
  const link = findLink(host, { netns: HOST_NETNS, ifname: bridge });
  const table = { family: 'inet' as const, table: OWNER_MARK };
  const deeds: Deed[] = [];
  if (mode !== 'ptp' && link?.kind === 'bridge' && isOurs(link))
    deeds.push({
      name: `${bridge} goes`,
      ops: [{ op: 'link.del', netns: HOST_NETNS, ifname: bridge }],
      words: [
        `${HOST_NETNS} link "${bridge}" is missing`,
        `${HOST_NETNS} link "${hostIfname}": master is none, should be ${bridge}`,
      ],
      isWhole: true,
    });
  if (addresses.length > 0)
    deeds.push({
      name: 'the table goes',
      ops: [{ op: 'nft.batch', netns: HOST_NETNS, commands: [{ ...table, do: 'delete table' }] }],
      words: [`${HOST_NETNS} nftables table inet ${OWNER_MARK} is missing`],
      isWhole: true,
    });
  if (mode !== 'ptp' && findLink(host, { netns: HOST_NETNS, ifname: hostIfname })?.port)
    deeds.push({
      name: `${hostIfname} is released`,
      ops: [{ op: 'link.set', netns: HOST_NETNS, ifname: hostIfname, set: { master: null } }],
      words: [`${HOST_NETNS} link "${hostIfname}": master is none, should be ${bridge}`],
      isWhole: true,
    });
  return deeds;
}

/** What is in the pod's netns. */
function podDeeds(host: Host, { netns, key, addresses }: Attachment): Deed[] {
  const ref = { netns, ifname: key.ifname };
  const link = findLink(host, ref);
  if (!link) return [];
  const own = new Set<string>(addresses.map(({ ip }) => ip));
  return [
    ...link.addresses
      .filter(({ ip }) => own.has(ip))
      .map((address) => ({
        name: `${key.ifname} loses ${address.ip}`,
        ops: [{ op: 'address.del' as const, ...ref, address }],
        words: [],
      })),
    ...getNetns(host, netns)
      .routes.filter(({ protocol, device }) => protocol === PROTOCOL_CUBE && device === key.ifname)
      .map((route) => ({
        name: `the route to ${route.destination} goes`,
        ops: [{ op: 'route.del' as const, netns, route }],
        words: [],
      })),
  ];
}

/** Elements of the attachment in a table of ours. */
function elementDeeds(table: Table, attachment: Attachment): Deed[] {
  const comment = commentOf(attachment.key);
  const ref = { family: table.family, table: table.name };
  return Object.values(table.sets).flatMap(({ name, elements }) =>
    Object.values(elements)
      .filter((element) => element.comment === comment)
      .map(({ key }) => ({
        name: `${name} loses ${key}`,
        ops: [
          {
            op: 'nft.batch' as const,
            netns: HOST_NETNS,
            commands: [{ ...ref, do: 'delete element' as const, set: name, key }],
          },
        ],
        words: [
          `${HOST_NETNS} nftables table ${table.family} ${table.name}: ${name} has no such element for ${key}`,
        ],
      })),
  );
}

/** The rules of a chain that the attachment's packets pass, whoever made them. */
function chainDeeds(table: Table): Deed[] {
  const ref = { family: table.family, table: table.name };
  const always = ['from-pods', 'to-pods'];
  return Object.values(table.chains)
    .filter(({ name }) => always.includes(name))
    .map(({ name }) => ({
      name: `chain ${name} is empty`,
      ops: [
        {
          op: 'nft.batch' as const,
          netns: HOST_NETNS,
          commands: [{ ...ref, do: 'flush chain' as const, chain: name }],
        },
      ],
      words: [
        `${HOST_NETNS} nftables table ${table.family} ${table.name}: the rules of chain ${name} are others`,
      ],
    }));
}

function tableDeeds(host: Host, attachment: Attachment): Deed[] {
  const { nftables } = getNetns(host, HOST_NETNS);
  const tables = (['inet', 'bridge'] as const).flatMap(
    (family) => nftables[tableKey({ family, table: OWNER_MARK })] ?? [],
  );
  const hasPods = attachment.addresses.length > 0;
  return tables.flatMap((table) => [
    ...elementDeeds(table, attachment),
    ...(hasPods && table.family === 'inet' ? chainDeeds(table) : []),
  ]);
}

/** What somebody adds to a pod's link. */
const ADDED_ADDRESS = makeAddress(parsePrefixedIp('192.0.2.77/32'));
const ADDED_DESTINATION = parsePrefix('198.51.100.0/24');

/** A host without what was added to pods' links, which goes with them and nobody brings back. */
export function withoutAdditions(host: Host): Host {
  const netns = Object.entries(host.netns).map(([name, each]): [string, Netns] => [
    name,
    {
      ...each,
      routes: each.routes.filter(
        ({ destination }) =>
          destination !== ADDED_DESTINATION && destination !== hostPrefix(ADDED_ADDRESS.ip),
      ),
      links: Object.fromEntries(
        Object.entries(each.links).map(([ifname, link]) => [
          ifname,
          { ...link, addresses: link.addresses.filter(({ ip }) => ip !== ADDED_ADDRESS.ip) },
        ]),
      ),
    },
  ]);
  return { ...host, netns: Object.fromEntries(netns) };
}

/** What was added to pods' links, as `NETNS LINK`. */
export function additionsIn(host: Host): string[] {
  return Object.entries(host.netns).flatMap(([name, { links, routes }]) => [
    ...routes
      .filter(({ destination }) => destination === ADDED_DESTINATION)
      .map(({ device }) => `${name} ${device}`),
    ...Object.values(links)
      .filter(({ addresses }) => addresses.some(({ ip }) => ip === ADDED_ADDRESS.ip))
      .map(({ ifname }) => `${name} ${ifname}`),
  ]);
}

/** Additions, of which CHECK has nothing to say. */
function additions(host: Host, { netns, key }: Attachment): Deed[] {
  const ref = { netns, ifname: key.ifname };
  const link = findLink(host, ref);
  if (!link?.up) return [];
  const route = makeRoute({ destination: ADDED_DESTINATION, device: key.ifname });
  return [
    {
      name: `${key.ifname} has another route`,
      ops: [{ op: 'route.add', netns, route: { ...route, protocol: PROTOCOL_BOOT } }],
      words: [],
    },
    {
      name: `${key.ifname} has another address`,
      ops: [{ op: 'address.add', ...ref, address: ADDED_ADDRESS }],
      words: [],
    },
  ];
}

/** Settings that somebody changes. */
function sysctlDeeds(host: Host, { gateway, mode, addresses, key, netns }: Attachment): Deed[] {
  const has = (separator: string): boolean => addresses.some(({ ip }) => ip.includes(separator));
  const isForwarded = gateway || mode === 'ptp';
  const deed = (name: NetnsName, sysctl: string, value: string): Deed[] => {
    const now = findNetns(host, name)?.sysctls[sysctl];
    return now === undefined || now === value
      ? []
      : [
          {
            name: `${sysctl} is ${value}`,
            ops: [{ op: 'sysctl.set', netns: name, key: sysctl, value }],
            words: [`${name} sysctl ${sysctl} is ${value}, should be ${now}`],
          },
        ];
  };
  return [
    ...(isForwarded && has('.') ? deed(HOST_NETNS, 'net/ipv4/ip_forward', '0') : []),
    ...(isForwarded && has(':') ? deed(HOST_NETNS, 'net/ipv6/conf/all/forwarding', '0') : []),
    ...(has(':') ? deed(netns, `net/ipv6/conf/${key.ifname}/accept_dad`, '2') : []),
  ];
}

/** A deed as a damage of this host, undefined where it cannot be done. */
function damageOf(host: Host, attachment: Attachment, deed: Deed): Damage | undefined {
  let after = host;
  for (const op of deed.ops) {
    const outcome = applyOp(after, op);
    if (!outcome.ok) return undefined;
    after = outcome.host;
  }
  if (after === host) return undefined;
  const lost = [HOST_NETNS, attachment.netns].flatMap((name) => {
    const left = possessions(after, name, attachment);
    return possessions(host, name, attachment).filter((each) => !left.includes(each));
  });
  const gone = [
    { netns: HOST_NETNS, ifname: attachment.hostIfname },
    { netns: attachment.netns, ifname: attachment.key.ifname },
  ].filter((ref) => findLink(host, ref) && !findLink(after, ref));
  const isGone = (line: string): boolean =>
    gone.some(({ netns, ifname }) => line.startsWith(`${netns} link "${ifname}": `));
  return {
    name: deed.name,
    ops: deed.ops,
    findings: [
      ...deed.words,
      // Of a link that is missing it is said once.
      ...(deed.isWhole ? [] : lost.filter((line) => !isGone(line))),
      ...gone.flatMap((ref) => lostSettings(host, after, ref)),
    ],
    disowns: deed.disowns === true,
    isWhole: deed.isWhole === true,
    isShared: deed.isShared === true || deed.isWhole === true,
  };
}

/** Everything that can be done to an attachment on this host. */
export function damagesOf(host: Host, attachment: Attachment): Damage[] {
  const hostEnd = { netns: HOST_NETNS, ifname: attachment.hostIfname };
  const podEnd = { netns: attachment.netns, ifname: attachment.key.ifname };
  const ifb = attachment.bandwidth?.ifb;
  const links: LinkRef[] = [hostEnd, podEnd, ...(ifb ? [{ ...hostEnd, ifname: ifb.ifname }] : [])];
  const deeds = [
    ...links.flatMap((ref) => {
      const link = findLink(host, ref);
      return link ? linkDeeds(link, ref) : [];
    }),
    ...(findLink(host, hostEnd) ? [removal(hostEnd, attachment), removal(podEnd, attachment)] : []),
    ...ifbRemoval(attachment),
    ...carrierDeeds(host, attachment),
    ...wholeDeeds(host, attachment),
    ...podDeeds(host, attachment),
    ...tableDeeds(host, attachment),
    ...additions(host, attachment),
    ...sysctlDeeds(host, attachment),
  ];
  return deeds.flatMap((deed) => damageOf(host, attachment, deed) ?? []);
}
