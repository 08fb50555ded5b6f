/** What a runtime knows of its attachments, and what must hold of them whatever happened. */
import assert from 'node:assert/strict';
import { HOST_NETNS, type Host, type Netns, findNetns, getNetns } from '../../../model/host.ts';
import { type Ip, familyOf, ipBits } from '../../../model/ip.ts';
import { OWNER_MARK } from '../../../model/link.ts';
import { findPrefixedIp } from '../../../model/prefix.ts';
import { type Attachment, formatKey } from '../../../plugin/attachment.ts';
import { parseConfig } from '../../../plugin/cni/config.ts';
import type { AttachmentKey } from '../../../plugin/cni/request.ts';
import type { CniResult } from '../../../plugin/cni/result.ts';
import { type RangeSet, rangeSetsOf } from '../../../plugin/ipam/ranges.ts';
import type { State } from '../../../plugin/state.ts';
import { commentOf } from '../../../plugin/table.ts';
import type { RawConfig } from '../../arbitraries/configuration.ts';

/** An attachment as the runtime knows it. */
export interface Entry {
  readonly key: AttachmentKey;
  readonly pod: number;
  readonly network: number;
  readonly netns: string;
  /** `unsure`: its last call died or failed, so that only DEL, GC or another ADD may come. */
  readonly state: 'attached' | 'unsure';
  /** Undefined where the runtime did not get it. */
  readonly result: CniResult | undefined;
}

/** By `formatKey`. */
export type Ledger = Map<string, Entry>;

const FIRST = { 4: '0.0.0.0' as Ip, 6: '::' as Ip };
const LAST = { 4: '255.255.255.255' as Ip, 6: 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff' as Ip };

/** The addresses of a network that the state file says are taken. */
export function takenIn(state: State, network: string): Ip[] {
  const book = state.addressBook(network);
  return ([4, 6] as const).flatMap((family) => [...book.takenBetween(FIRST[family], LAST[family])]);
}

/** The range sets of a raw configuration; none where it gives no addresses. */
export function rangesIn(raw: RawConfig): readonly RangeSet[] {
  const { ipam } = parseConfig(raw);
  return ipam ? rangeSetsOf(ipam) : [];
}

/** Is the address one that the set may hand out? Told by the sets alone. */
export function mayHandOut(sets: readonly RangeSet[], set: RangeSet, ip: Ip): boolean {
  const bits = ipBits(ip);
  const isGateway = sets.flat().some(({ gateway }) => gateway === ip);
  return (
    !isGateway &&
    set.some(
      ({ family, first, last, excluded }) =>
        family === familyOf(ip) &&
        first <= bits &&
        bits <= last &&
        !excluded.some((span) => span.first <= bits && bits <= span.last),
    )
  );
}

/** Fails unless every record is the ledger's, finished where the runtime has a result, and has addresses of its own. */
export function assertRecords(state: State, ledger: Ledger, networks: readonly RawConfig[]): void {
  const records = state.list();
  const owners = new Map<string, string>();
  const names = records.map(({ attachment }) => formatKey(attachment.key));
  assert.deepEqual(
    names.toSorted(),
    [...ledger.keys()].toSorted(),
    'records are not the attachments',
  );
  for (const { attachment, state: progress } of records) {
    const name = formatKey(attachment.key);
    const entry = ledger.get(name);
    if (entry?.state === 'attached') assert.equal(progress, 'finished', `${name} is not finished`);
    const sets = rangesIn(networks[entry?.network ?? 0] as RawConfig);
    assert.equal(
      attachment.addresses.length,
      sets.length,
      `${name} has not an address of each set`,
    );
    for (const [i, { ip }] of attachment.addresses.entries()) {
      assert(mayHandOut(sets, sets[i] as RangeSet, ip), `${name} has ${ip}, which is out of range`);
      const owner = owners.get(ip);
      assert.equal(owner, undefined, `${ip} is both ${owner}'s and ${name}'s`);
      owners.set(ip, name);
    }
  }
  for (const raw of networks) {
    const network = String(raw['name']);
    const own = records.filter(({ attachment }) => attachment.key.network === network);
    const ips = own.flatMap(({ attachment }) => attachment.addresses.map(({ ip }) => ip));
    assert.deepEqual(
      takenIn(state, network).toSorted(),
      ips.toSorted(),
      `addresses of ${network} are taken and nobody's`,
    );
  }
}

/** The links that an attachment has in a netns, or shares with others. */
function linksOf(attachment: Attachment, netns: string): string[] {
  const { key, hostIfname, bridge, mode, bandwidth, vlans } = attachment;
  if (netns !== HOST_NETNS) return netns === attachment.netns ? [key.ifname] : [];
  return [
    hostIfname,
    ...(mode === 'ptp' ? [] : [bridge]),
    ...(bandwidth?.ifb ? [bandwidth.ifb.ifname] : []),
    ...(vlans?.gateway ? [vlans.gateway.ifname, vlans.gateway.portIfname] : []),
  ];
}

/** The subnet in the name of a chain that serves one. */
function subnetIn(chain: string): string | undefined {
  const [, ip, length] = /^(?:masq|snat)-(.+)-(\d+)$/.exec(chain) ?? [];
  return ip === undefined ? undefined : `${ip.replaceAll('_', ':')}/${length}`;
}

function isIn(ip: Ip, subnet: string): boolean {
  const range = findPrefixedIp(subnet);
  if (!range || familyOf(range.ip) !== familyOf(ip)) return false;
  const shift = BigInt((familyOf(ip) === 4 ? 32 : 128) - range.prefixLength);
  return ipBits(ip) >> shift === ipBits(range.ip) >> shift;
}

function assertTables(netns: Netns, attachments: readonly Attachment[]): void {
  const comments = new Set(attachments.map(({ key }) => commentOf(key)));
  const ips = attachments.flatMap(({ addresses }) => addresses.map(({ ip }) => ip));
  const ours = Object.values(netns.nftables).filter(({ name }) => name === OWNER_MARK);
  assert(ours.length === 0 || attachments.length > 0, 'a table of ours is left');
  for (const table of ours) {
    for (const { name, elements } of Object.values(table.sets))
      for (const { key, comment } of Object.values(elements)) {
        if (comment !== '') assert(comments.has(comment), `${name} holds ${key} of ${comment}`);
        // Of a link, and whoever is behind it.
        else {
          const [link = ''] = key.split(' . ');
          assert(
            link === 'lo' || attachments.some((each) => linksOf(each, HOST_NETNS).includes(link)),
            `${name} holds ${key}, and nobody is behind that`,
          );
        }
      }
    for (const { name } of Object.values(table.chains)) {
      const subnet = subnetIn(name);
      if (subnet !== undefined)
        assert(
          ips.some((ip) => isIn(ip, subnet)),
          `chain ${name} is nobody's`,
        );
    }
  }
}

/** Fails when the node has something that its shadow has not and no record needs. */
export function assertNoLeftovers(host: Host, shadow: Host, state: State): void {
  const attachments = state.list().map(({ attachment }) => attachment);
  for (const [name, netns] of Object.entries(host.netns)) {
    const known = findNetns(shadow, name);
    const needed = new Set(attachments.flatMap((each) => linksOf(each, name)));
    for (const ifname of Object.keys(netns.links)) {
      if (known && Object.hasOwn(known.links, ifname)) continue;
      assert(needed.has(ifname), `link "${ifname}" in netns "${name}" is nobody's`);
    }
    for (const { device, destination } of netns.routes)
      assert(
        device === null || Object.hasOwn(netns.links, device),
        `the route to ${destination} leads to no link`,
      );
  }
  assertTables(getNetns(host, HOST_NETNS), attachments);
}
