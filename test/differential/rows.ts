/** A host as rows of named fields, so that a difference names the field and not the whole. */
import { canonicalJson } from '../../model/canonical.ts';
import { allEntries } from '../../model/fdb.ts';
import type { Host, Netns, NetnsName } from '../../model/host.ts';
import { familyOf } from '../../model/ip.ts';
import type { Link, LinkRef } from '../../model/link.ts';
import { formatRule } from '../../model/nftables.ts';
import { policyRulesOf } from '../../model/policy-rule.ts';

/** One thing that a netns holds. */
export interface Row {
  readonly kind:
    | 'netns'
    | 'link'
    | 'address'
    | 'neighbour'
    | 'fdb entry'
    | 'remote'
    | 'route'
    | 'policy rule'
    | 'sysctl'
    | 'nftables'
    | 'chain'
    | 'rule'
    | 'set'
    | 'element';
  readonly netns: NetnsName;
  readonly fields: Readonly<Record<string, unknown>>;
}

/**
 * What of a link is left out of a comparison: the marks that a bridge keeps of its past. The kernel has no
 * attribute for them (K-1.7, K-1.10, K-1.11), so whoever reads it can only guess them from their traces.
 */
const HISTORY = new Set(['hadPorts', 'macChosen', 'mtuChosen']);

/** What has rows of its own. */
const APART = new Set(['fdb', 'remotes']);

/** The links over one, in no order that the kernel would show. */
function above(uppers: readonly LinkRef[]): Row['fields'] {
  const names = uppers.map((ref) => `${ref.netns}/${ref.ifname}`).toSorted();
  return names.length === 0 ? {} : { uppers: names.join(' ') };
}

function linkRows(netns: NetnsName, link: Link, state: Netns): Row[] {
  const { addresses, neighbours, port, uppers = [], ...rest } = link;
  const { ifname } = link;
  const own = Object.entries(rest).filter(([name]) => !HISTORY.has(name) && !APART.has(name));
  const flags = port ? Object.entries(port).map(([name, value]) => [`port ${name}`, value]) : [];
  const places = { 4: 0, 6: 0 };
  return [
    {
      kind: 'link',
      netns,
      fields: { ...Object.fromEntries([...own, ...flags]), ...above(uppers) },
    },
    ...addresses.map((address): Row => {
      const family = familyOf(address.ip);
      // The order of IPv4 addresses decides which is taken as source (K-5.5); that of IPv6 addresses goes by scope.
      const place = family === 4 ? { place: (places[family] += 1) } : {};
      return { kind: 'address', netns, fields: { ifname, ...address, ...place } };
    }),
    ...(link.kind === 'vxlan' ? (link.remotes ?? []) : []).map((remote): Row => ({
      kind: 'remote',
      netns,
      fields: { ifname, ...remote },
    })),
    ...(link.kind === 'bridge' ? allEntries(state, link) : []).map((entry): Row => ({
      kind: 'fdb entry',
      netns,
      fields: { ifname, ...entry },
    })),
    ...neighbours.map((n): Row => ({ kind: 'neighbour', netns, fields: { ifname, ...n } })),
  ];
}

function nftablesRows(netns: NetnsName, { nftables }: Netns): Row[] {
  return Object.values(nftables).flatMap(({ family, name, chains, sets }) => {
    const table = `${family} ${name}`;
    const row = (kind: Row['kind'], fields: Row['fields']): Row => ({
      kind,
      netns,
      fields: { table, ...fields },
    });
    return [
      row('nftables', {}),
      ...Object.values(chains).flatMap((chain) => [
        row('chain', { name: chain.name, ...(chain.hook ?? { hook: null }) }),
        ...chain.rules.map((rule, index) =>
          row('rule', { chain: chain.name, index, text: formatRule(rule) }),
        ),
      ]),
      ...Object.values(sets).flatMap(({ elements, ...set }) => [
        row('set', { ...set }),
        ...Object.values(elements).map((element) => row('element', { set: set.name, ...element })),
      ]),
    ];
  });
}

/** Everything that a host holds. */
export function rowsOf(host: Host): Row[] {
  return Object.entries(host.netns).flatMap(([netns, state]) => [
    { kind: 'netns' as const, netns, fields: {} },
    ...Object.values(state.links).flatMap((link) => linkRows(netns, link, state)),
    ...state.routes.map((route): Row => ({ kind: 'route', netns, fields: { ...route } })),
    ...policyRulesOf(state).map((rule, place): Row => ({
      kind: 'policy rule',
      netns,
      fields: { ...rule, place },
    })),
    ...Object.entries(state.sysctls).map(([key, value]): Row => ({
      kind: 'sysctl',
      netns,
      fields: { key, value },
    })),
    ...nftablesRows(netns, state),
  ]);
}

function differingFields(a: Row, b: Row): string[] {
  const names = new Set([...Object.keys(a.fields), ...Object.keys(b.fields)]);
  return [...names].filter((n) => canonicalJson(a.fields[n]) !== canonicalJson(b.fields[n]));
}

function formatRow({ kind, netns, fields }: Row): string {
  return `${kind} in ${netns}: ${JSON.stringify(fields)}`;
}

/** The names under which the two sides of a comparison are reported. */
export type Sides = readonly [string, string];

/** What makes rows the same thing although their fields differ: more than half of the fields agree. */
function pairUp(left: readonly Row[], right: readonly Row[], sides: Sides): string[] {
  const report: string[] = [];
  const open = [...right];
  for (const row of left) {
    const candidates = open
      .filter((other) => other.kind === row.kind && other.netns === row.netns)
      .map((other) => ({ other, fields: differingFields(row, other) }))
      .toSorted((a, b) => a.fields.length - b.fields.length);
    const best = candidates[0];
    if (!best || best.fields.length * 2 > Object.keys(row.fields).length) {
      report.push(`only in the ${sides[0]}: ${formatRow(row)}`);
      continue;
    }
    open.splice(open.indexOf(best.other), 1);
    for (const field of best.fields) {
      const values = [row, best.other].map(
        (each, i) => `${sides[i]} ${JSON.stringify(each.fields[field]) ?? 'nothing'}`,
      );
      report.push(`${field}: ${values.join(', ')} of ${formatRow(row)}`);
    }
  }
  return [...report, ...open.map((row) => `only in the ${sides[1]}: ${formatRow(row)}`)];
}

/** The differences between two states, one line each; none when they are equal. */
export function compareRows(left: readonly Row[], right: readonly Row[], sides: Sides): string[] {
  const text = (row: Row): string => canonicalJson(row);
  const counts = new Map<string, number>();
  for (const row of right) counts.set(text(row), (counts.get(text(row)) ?? 0) + 1);
  const onlyLeft = left.filter((row) => {
    const count = counts.get(text(row)) ?? 0;
    counts.set(text(row), count - 1);
    return count <= 0;
  });
  const onlyRight = right.filter((row) => {
    const count = counts.get(text(row)) ?? 0;
    counts.set(text(row), count - 1);
    return count > 0;
  });
  return pairUp(onlyLeft, onlyRight, sides);
}
