/** Matches and targets of iptables, as iptables-save prints them (iptables: extensions/libxt_*.c, libipt_*.c). */
import { type Masked, type XtMatch, type XtTarget, fromHex } from '../../model/nft-expression.ts';
import type { NftFamily } from '../../model/nftables.ts';
import { ADDRESS, ADDRESS_TYPES, TCP_FLAGS } from './value.ts';

function not(invert: boolean): string {
  return invert ? '! ' : '';
}

function hexadecimal(number: number): string {
  return `0x${(number >>> 0).toString(16)}`;
}

function portRange([first, last]: readonly [number, number]): string {
  return first === last ? `${first}` : `${first}:${last}`;
}

type Names = readonly (readonly [bit: number, name: string])[];

function listed(names: Names, bits: number): string {
  return names
    .filter(([bit]) => (bits & bit) !== 0)
    .map(([, name]) => name)
    .join(',');
}

const XT_STATES: Names = [
  [1, 'INVALID'],
  [8, 'NEW'],
  [4, 'RELATED'],
  [2, 'ESTABLISHED'],
  [0x100, 'UNTRACKED'],
  [0x40, 'SNAT'],
  [0x80, 'DNAT'],
];
const XT_STATUSES: Names = [
  [1, 'EXPECTED'],
  [2, 'SEEN_REPLY'],
  [4, 'ASSURED'],
  [8, 'CONFIRMED'],
];

/** XT_CONNTRACK_*, in the order in which they are printed. */
const CONNTRACK = {
  state: 0x1,
  protocol: 0x2,
  addresses: [
    [0x4, 'ctorigsrc', 'original', 'source'],
    [0x8, 'ctorigdst', 'original', 'destination'],
    [0x10, 'ctreplsrc', 'reply', 'source'],
    [0x20, 'ctrepldst', 'reply', 'destination'],
  ],
  ports: [
    [0x100, 'ctorigsrcport'],
    [0x200, 'ctorigdstport'],
    [0x400, 'ctreplsrcport'],
    [0x800, 'ctrepldstport'],
  ],
  status: 0x40,
  expires: 0x80,
  direction: 0x1000,
} as const;

function maskBits(mask: string): number | undefined {
  const bits = [...fromHex(mask)].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  const length = bits.lastIndexOf('1') + 1;
  return bits.slice(0, length).includes('0') ? undefined : length;
}

function maskedText({ value, mask }: Masked): string {
  const bits = maskBits(mask);
  if (bits === undefined) return `${ADDRESS.text(value)}/${ADDRESS.text(mask)}`;
  return bits === mask.length * 4 ? ADDRESS.text(value) : `${ADDRESS.text(value)}/${bits}`;
}

function conntrackText(match: XtMatch & { readonly match: 'conntrack' }): string {
  const { asks, inverts, states, statuses, protocol, ports } = match;
  const option = (bit: number, text: () => string): string[] =>
    (asks & bit) === 0 ? [] : [`${not((inverts & bit) !== 0)}--${text()}`];
  const { addresses } = CONNTRACK;
  return [
    '-m conntrack',
    ...option(CONNTRACK.state, () => `ctstate ${listed(XT_STATES, states)}`),
    ...option(CONNTRACK.protocol, () => `ctproto ${protocol}`),
    ...addresses.flatMap(([bit, name, direction, side]) =>
      option(bit, () => `${name} ${maskedText(match[direction][side])}`),
    ),
    ...CONNTRACK.ports.flatMap(([bit, name], i) =>
      option(bit, () => `${name} ${portRange(ports[i] ?? [0, 0])}`),
    ),
    ...option(
      CONNTRACK.status,
      () => `ctstatus ${statuses === 0 ? 'NONE' : listed(XT_STATUSES, statuses)}`,
    ),
    // For how long is not kept.
    ...option(CONNTRACK.expires, () => 'ctexpire ...'),
    ...((asks & CONNTRACK.direction) === 0
      ? []
      : [`--ctdir ${(inverts & CONNTRACK.direction) === 0 ? 'ORIGINAL' : 'REPLY'}`]),
  ].join(' ');
}

const XT_TYPES: Names = Object.entries(ADDRESS_TYPES).map(
  ([type, name]) => [1 << Number(type), name.toUpperCase()] as const,
);

function addrtypeText({
  source,
  destination,
  flags,
}: XtMatch & { readonly match: 'addrtype' }): string {
  return [
    '-m addrtype',
    ...(source === 0 ? [] : [`${not((flags & 1) !== 0)}--src-type ${listed(XT_TYPES, source)}`]),
    ...(destination === 0
      ? []
      : [`${not((flags & 2) !== 0)}--dst-type ${listed(XT_TYPES, destination)}`]),
    ...((flags & 4) === 0 ? [] : ['--limit-iface-in']),
    ...((flags & 8) === 0 ? [] : ['--limit-iface-out']),
  ].join(' ');
}

/** Is a range of ports less than all of them? */
function narrows([first, last]: readonly [number, number]): boolean {
  return first !== 0 || last !== 65_535;
}

const NO_FLAGS = 'NONE';
const ALL_FLAGS = 0x3f;

function tcpFlags(bits: number): string {
  if (bits === 0) return NO_FLAGS;
  // The two of explicit congestion notification are not among those that it knows.
  return (
    TCP_FLAGS.flags?.((bits & ALL_FLAGS).toString(16).padStart(2, '0'))
      .join(',')
      .toUpperCase() ?? ''
  );
}

function portedText(match: XtMatch & { readonly match: 'tcp' | 'udp' }): string {
  const { source, destination, flagsMask, flags, inverts } = match;
  return [
    `-m ${match.match}`,
    ...(narrows(source) ? [`${not((inverts & 1) !== 0)}--sport ${portRange(source)}`] : []),
    ...(narrows(destination)
      ? [`${not((inverts & 2) !== 0)}--dport ${portRange(destination)}`]
      : []),
    ...(flagsMask === 0
      ? []
      : [`${not((inverts & 8) !== 0)}--tcp-flags ${tcpFlags(flagsMask)} ${tcpFlags(flags)}`]),
  ].join(' ');
}

const ANY_TYPE = 255;

function icmpText(
  { type, codes: [first, last], invert }: XtMatch & { readonly match: 'icmp' },
  isIpv6: boolean,
): string {
  const option = isIpv6 ? 'icmpv6-type' : 'icmp-type';
  const code =
    first === 0 && last === 255 ? '' : first === last ? `/${first}` : `/${first}-${last}`;
  const what = type === ANY_TYPE && !isIpv6 ? 'any' : `${type}${code}`;
  return `-m ${isIpv6 ? 'icmp6' : 'icmp'} ${not(invert)}--${option} ${what}`;
}

const ALL_BITS = 0xffffffff;

function markText({ mark, mask, invert }: XtMatch & { readonly match: 'mark' }): string {
  const bits = mask >>> 0 === ALL_BITS ? '' : `/${hexadecimal(mask)}`;
  return `-m mark ${not(invert)}--mark ${hexadecimal(mark)}${bits}`;
}

const MULTIPORT = { source: 'sports', destination: 'dports', either: 'ports' } as const;

/** Of how many the chance of a match is told. */
const CHANCES = 2 ** 31;

/** A match of a table of this family in words. */
export function xtMatchText(match: XtMatch, family: NftFamily): string {
  switch (match.match) {
    case 'conntrack':
      return conntrackText(match);
    case 'addrtype':
      return addrtypeText(match);
    case 'mark':
      return markText(match);
    case 'multiport':
      return `-m multiport ${not(match.invert)}--${MULTIPORT[match.of]} ${match.ports.map(portRange).join(',')}`;
    case 'statistic':
      return match.mode === 'random'
        ? `-m statistic --mode random ${not(match.invert)}--probability ${((match.probability >>> 0) / CHANCES).toFixed(11)}`
        : `-m statistic --mode nth ${not(match.invert)}--every ${match.every + 1} --packet ${match.packet}`;
    case 'icmp':
      return icmpText(match, family === 'ip6');
    case 'tcp':
    case 'udp':
      return portedText(match);
  }
}

/** An address and a port, either of which may be missing. */
function endText(ip: string | null, port: string | null): string {
  if (port === null) return ip ?? '';
  return ip?.includes(':') ? `[${ip}]:${port}` : `${ip ?? ''}:${port}`;
}

const REJECT6 = { 'admin-prohibited': 'adm-prohibited' } as const;

function rejectWith(answer: string): string {
  if (answer === 'tcp reset') return 'tcp-reset';
  const [kind, code = ''] = answer.split(' ');
  if (kind === 'icmp') return `icmp-${code}`;
  return `icmp6-${REJECT6[code as keyof typeof REJECT6] ?? code}`;
}

/** A target in words. */
export function xtTargetText(target: XtTarget): string {
  switch (target.target) {
    case 'DNAT':
    case 'SNAT': {
      const { ip, port } = target;
      const option = target.target === 'DNAT' ? '--to-destination' : '--to-source';
      return `-j ${target.target} ${option} ${endText(ip, port === null ? null : `${port}`)}`;
    }
    case 'REDIRECT':
      return `-j REDIRECT${target.port === null ? '' : ` --to-ports ${target.port}`}`;
    case 'REJECT':
      return `-j REJECT --reject-with ${rejectWith(target.answer)}`;
    case 'MARK':
      return `-j MARK --set-xmark ${hexadecimal(target.mark)}/${hexadecimal(target.mask)}`;
    case 'MASQUERADE':
      return '-j MASQUERADE';
    case 'NOTRACK':
      return '-j NOTRACK';
  }
}
