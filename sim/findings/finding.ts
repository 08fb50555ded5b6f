import type { Address } from '../../model/address.ts';
/** What is wrong with a host as it stands, whether or not anybody sends a packet. */
import type { Host, NetnsName } from '../../model/host.ts';
import type { Link, LinkRef } from '../../model/link.ts';
import { type Prefix, formatPrefixedIp } from '../../model/prefix.ts';
import type { Route } from '../../model/route.ts';
import { type Cause, formatCause } from '../cause.ts';
import type { Marks } from '../journey.ts';
import { formatRoute } from '../route.ts';

/** An error keeps somebody from reaching somebody; a warning does under conditions that are not known; a note may be as somebody wants it. */
export type Severity = 'error' | 'warning' | 'note';

/** Which of the questions it answers. */
export type FindingKind =
  | 'bridge-mac'
  | 'default-route'
  | 'duplicate-address'
  | 'duplicate-mac'
  | 'forwarding'
  | 'gateway'
  | 'ipv6-disabled'
  | 'link-down'
  | 'link-without-record'
  | 'masquerade'
  | 'mtu'
  | 'networkd'
  | 'overlapping-subnets'
  | 'port-without-master'
  | 'prefix-route'
  | 'reachability'
  | 'record-without-link'
  | 'reverse-path'
  | 'rule-of-empty-table'
  | 'stale-fdb-entry'
  | 'stale-neighbour'
  | 'unnamed-netns'
  | 'unread-table'
  | 'untranslated-answer'
  | 'vxlan-remote';

/** A guilty object in the words of `Cause`, and the lines of state that show it. */
export interface HostFinding extends Omit<Cause, 'reason'> {
  readonly severity: Severity;
  readonly kind: FindingKind;
  /** `netns a: 10.244.1.2/24 dev eth0`. */
  readonly evidence: readonly string[];
  /** The addresses that it keeps from being reached, or from reaching others; absent: it is not said. */
  readonly affects?: readonly Prefix[];
}

const ORDER: readonly Severity[] = ['error', 'warning', 'note'];

/** The worst first, those of a severity as they were found. */
export function bySeverity(findings: readonly HostFinding[]): HostFinding[] {
  return findings.toSorted((a, b) => ORDER.indexOf(a.severity) - ORDER.indexOf(b.severity));
}

/** A line of evidence. */
export function seen(netns: NetnsName, text: string): string {
  return `netns ${netns}: ${text}`;
}

/** An address as evidence. */
export function seenAddress({ netns }: LinkRef, link: Link, address: Address): string {
  const mac = link.mac === null ? '' : `, ${link.mac}`;
  return seen(netns, `${formatPrefixedIp(address)} dev ${link.ifname}${mac}`);
}

/** A route as evidence. */
export function seenRoute(netns: NetnsName, route: Route): string {
  return seen(netns, formatRoute(route));
}

/** As many lines of evidence are enough; of the others their number. */
const LINES = 4;

/** Evidence of which there may be as much as there are pods. */
export function shortened(lines: readonly string[]): string[] {
  if (lines.length <= LINES) return [...lines];
  return [...lines.slice(0, LINES - 1), `and ${lines.length - LINES + 1} more`];
}

/** How much was looked at. */
export interface Extent {
  readonly netns: number;
  readonly links: number;
}

/** The loopbacks, which every netns has, do not count. */
export function extentOf(host: Host): Extent {
  const all = Object.values(host.netns);
  const links = all.flatMap((netns) => Object.values(netns.links));
  return { netns: all.length, links: links.filter(({ kind }) => kind !== 'loopback').length };
}

function counted(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? '' : 's'}`;
}

function formatExtent({ netns, links }: Extent): string {
  return `in ${netns} netns, ${counted(links, 'link')}`;
}

function paint(severity: Severity, text: string, marks: Marks): string {
  if (severity === 'note') return text;
  return severity === 'error' ? marks.red(text) : marks.yellow(text);
}

/** Lines under a label. */
function labelled(label: string, texts: readonly string[]): string[] {
  return texts.map((text, index) => `  ${(index === 0 ? label : '').padEnd(7)}${text}`);
}

function formatOne(finding: HostFinding, marks: Marks): string[] {
  const { severity, evidence, mend } = finding;
  return [
    `${paint(severity, severity.padEnd(7), marks)}  ${formatCause(finding)}`,
    ...labelled('seen', evidence),
    ...labelled('mend', mend).map(marks.dim),
  ];
}

/** Findings for a terminal, with how many of each severity there are, or that there are none. */
export function formatFindings(
  findings: readonly HostFinding[],
  extent: Extent,
  marks: Marks,
): string[] {
  if (findings.length === 0) return [`${marks.green('✓')} nothing found ${formatExtent(extent)}`];
  const counts = ORDER.map((severity) => ({
    severity,
    count: findings.filter((each) => each.severity === severity).length,
  })).filter(({ count }) => count > 0);
  return [
    ...findings.flatMap((finding) => formatOne(finding, marks)),
    `${counts.map(({ severity, count }) => counted(count, severity)).join(', ')} ${formatExtent(extent)}`,
  ];
}
