import type { DesiredHost } from './desired.ts';
import { diff } from './diff.ts';
import { type Host, findLink, findNetns } from './host.ts';
import { type Link, OWNER_MARK, TX_QUEUE_LENGTH } from './link.ts';
import { type NftCommand, formatRule } from './nftables.ts';
import type { StateOp } from './op.ts';
import { describeOp } from './ops.ts';
import type { LinkAttribute } from './ops/link-set.ts';
import { describeRoute } from './ops/route-add.ts';
import { order } from './order.ts';
import { formatPolicyRule } from './policy-rule.ts';
import { formatPrefixedIp } from './prefix.ts';
import { type RootQdisc, formatBucket } from './traffic-control.ts';
import { findVlan, formatVlan } from './vlan.ts';

/** One way in which a host is not what it should be, with what would mend it. */
export interface Finding {
  readonly netns: string;
  /** What is there and what should be: `link "eth0": mtu is 1500, should be 1450`. */
  readonly text: string;
  /** The commands that would mend it. */
  readonly repair: readonly string[];
}

function word(on: boolean): string {
  return on ? 'on' : 'off';
}

function attributeText(link: Link, set: LinkAttribute): string {
  if ('up' in set) return `is ${link.up ? 'up' : 'down'}, should be ${set.up ? 'up' : 'down'}`;
  if ('mtuBytes' in set) return `mtu is ${link.mtuBytes}, should be ${set.mtuBytes}`;
  if ('mac' in set) return `address is ${link.mac ?? 'none'}, should be ${set.mac}`;
  if ('promiscuous' in set)
    return `promiscuous mode is ${word(link.promiscuous)}, should be ${word(set.promiscuous)}`;
  if ('allMulticast' in set)
    return `all-multicast mode is ${word(link.allMulticast === true)}, should be ${word(set.allMulticast)}`;
  if ('group' in set) return `group is ${link.group ?? 0}, should be ${set.group}`;
  if ('txQueueLength' in set)
    return `transmit queue length is ${link.txQueueLength ?? TX_QUEUE_LENGTH}, should be ${set.txQueueLength}`;
  if ('master' in set)
    return `master is ${link.port?.master ?? 'none'}, should be ${set.master ?? 'none'}`;
  if ('vlanFiltering' in set) {
    const filtering = link.kind === 'bridge' && link.vlans?.filtering === true;
    return `VLAN filtering is ${word(filtering)}, should be ${word(set.vlanFiltering)}`;
  }
  return `alias is "${link.alias}", should be "${set.alias}"`;
}

function commandText(command: NftCommand): string {
  const table = `nftables table ${command.family} ${command.table}`;
  switch (command.do) {
    case 'add table':
      return `${table} is missing`;
    case 'add chain':
      return `${table}: chain ${command.chain} is missing or hooked in otherwise`;
    case 'add set':
      return `${table}: ${command.holds === 'verdict' ? 'map' : 'set'} ${command.set} is missing`;
    case 'add element':
      return `${table}: ${command.set} has no such element for ${command.element.key}`;
    case 'insert rule':
      return `${table}: chain ${command.chain} lacks the rule ${formatRule(command.rule)}`;
    case 'delete rule':
      return `${table}: chain ${command.chain} has the rule ${formatRule(command.rule)}`;
    case 'add rule':
      // In a chain of somebody else's it is the only one that is ours.
      if (command.table !== OWNER_MARK)
        return `${table}: chain ${command.chain} lacks the rule ${formatRule(command.rule)}`;
      return `${table}: the rules of chain ${command.chain} are others`;
    case 'flush chain':
      return `${table}: the rules of chain ${command.chain} are others`;
    case 'delete element':
      return `${table}: ${command.set} has another element for ${command.key}`;
    case 'delete table':
      return `${table} should not be there`;
    case 'delete chain':
      return `${table}: chain ${command.chain} should not be there`;
    case 'delete set':
      return `${table}: ${command.set} should not be there`;
  }
}

/** Does the operation change a link that is missing, so that saying so once is enough? */
function isOfMissingLink(observed: Host, op: StateOp): boolean {
  return 'ifname' in op && findLink(observed, op) === undefined;
}

function textsOf(observed: Host, op: StateOp): string[] {
  switch (op.op) {
    case 'netns.add':
      return ['it does not exist'];
    case 'netns.del':
      return ['it should not exist'];
    case 'link.add':
      return [`link "${op.link.ifname}" is missing`];
    case 'link.del':
      return [`link "${op.ifname}" is another one than it should be`];
    case 'group.del':
      return op.ifnames.map((ifname) => `link "${ifname}" should not be there`);
    case 'link.set': {
      const link = findLink(observed, op);
      return link
        ? [`link "${op.ifname}": ${attributeText(link, op.set)}`]
        : [`link "${op.ifname}" is missing`];
    }
    case 'link.rename':
      return [`link "${op.ifname}": its name should be "${op.name}"`];
    case 'link.move':
      return [`link "${op.ifname}": it should be in netns "${op.toNetns}"`];
    case 'altname.add':
      return [`link "${op.ifname}": alternative name "${op.altname}" is missing`];
    case 'altname.del':
      return [`link "${op.ifname}": alternative name "${op.altname}" should not be there`];
    case 'port.set': {
      const on = findLink(observed, op)?.port?.[op.flag] ?? !op.on;
      return [`bridge port "${op.ifname}": ${op.flag} is ${word(on)}, should be ${word(op.on)}`];
    }
    case 'fdb.add':
      return [`link "${op.ifname}": entry ${op.mac} of the forwarding database is missing`];
    case 'fdb.del':
      return [
        `link "${op.ifname}": entry ${op.mac} of the forwarding database should not be there`,
      ];
    case 'remote.add':
      return [`link "${op.ifname}": ${op.remote.ip} is missing as the place of ${op.remote.mac}`];
    case 'remote.del':
      return [`link "${op.ifname}": ${op.remote.ip} should not be the place of ${op.remote.mac}`];
    case 'vlan.add':
    case 'vlan.del':
      return [vlanText(observed, op)];
    case 'qdisc.add':
    case 'qdisc.del':
    case 'filter.add':
    case 'filter.del':
      return [trafficControlText(observed, op)];
    case 'address.add':
      return [`link "${op.ifname}": address ${formatPrefixedIp(op.address)} is missing`];
    case 'address.del':
      return [`link "${op.ifname}": address ${formatPrefixedIp(op.address)} should not be there`];
    case 'route.add':
      return [`route ${describeRoute(op.route)} is missing`];
    case 'route.del':
      return [`route ${describeRoute(op.route)} should not be there`];
    case 'rule.add':
      return [`rule ${formatPolicyRule(op.rule)} is missing`];
    case 'rule.del':
      return [`rule ${formatPolicyRule(op.rule)} should not be there`];
    case 'neighbour.add':
      return [`link "${op.ifname}": neighbour ${op.neighbour.ip} is missing`];
    case 'neighbour.del':
      return [`link "${op.ifname}": neighbour ${op.ip} should not be there`];
    case 'sysctl.set':
      return [
        `sysctl ${op.key} is ${findNetns(observed, op.netns)?.sysctls[op.key] ?? 'missing'}, should be ${op.value}`,
      ];
    case 'nft.batch':
      return [...new Set(op.commands.map(commandText))];
  }
}

function vlanText(observed: Host, op: Extract<StateOp, { op: 'vlan.add' | 'vlan.del' }>): string {
  const link = findLink(observed, op);
  const what = `${op.self ? 'bridge' : 'bridge port'} "${op.ifname}"`;
  if (op.op === 'vlan.del') {
    const ids = formatVlan({ ...op, pvid: false, untagged: false });
    return `${what}: VLAN ${ids} should not be there`;
  }
  const have = op.self ? link?.kind === 'bridge' && link.vlans?.own : link?.port?.vlans;
  const found = have ? findVlan(have, op.vlan.first) : undefined;
  return found
    ? `${what}: VLAN ${formatVlan({ ...op.vlan, pvid: found.pvid, untagged: found.untagged })} should be ${formatVlan(op.vlan)}`
    : `${what}: VLAN ${formatVlan(op.vlan)} is missing`;
}

function bucketText(root: RootQdisc | undefined): string {
  if (!root) return 'not limited';
  return root.kind === 'tbf' ? formatBucket(root) : `left to qdisc ${root.name}`;
}

function trafficControlText(
  observed: Host,
  op: Extract<StateOp, { op: 'qdisc.add' | 'qdisc.del' | 'filter.add' | 'filter.del' }>,
): string {
  const { root, ingress } = findLink(observed, op)?.trafficControl ?? {};
  const link = `link "${op.ifname}"`;
  if (op.op === 'filter.add') {
    const redirect = ingress?.redirect;
    const now =
      redirect === undefined
        ? 'not redirected'
        : `redirected to ${redirect ?? 'a link that is gone'}`;
    return `${link}: what comes in is ${now}, should be to ${op.redirect}`;
  }
  if (op.op === 'filter.del') return `${link}: what comes in should not be redirected`;
  if (op.op === 'qdisc.del') return `${link}: its qdisc at ${op.at} should not be there`;
  if (op.qdisc.kind === 'clsact') return `${link}: qdisc clsact is missing`;
  return `${link}: what leaves is ${bucketText(root)}, should be ${formatBucket(op.qdisc)}`;
}

function statements(observed: Host, op: StateOp): Pick<Finding, 'netns' | 'text'>[] {
  return textsOf(observed, op).map((text) => ({ netns: op.netns, text }));
}

/** A missing veth is missing at both of its ends. */
function farEnd(observed: Host, op: StateOp): Pick<Finding, 'netns' | 'text'>[] {
  if (op.op !== 'link.add' || op.link.kind !== 'veth' || findLink(observed, op.link.peer))
    return [];
  const { netns, ifname } = op.link.peer;
  return [{ netns, text: `link "${ifname}" is missing` }];
}

/** Does `op` make what `removal` has made room for? Then it is one difference, not two. */
function replaces(op: StateOp, removal: StateOp): boolean {
  if (!('ifname' in op && 'ifname' in removal)) return false;
  if (op.netns !== removal.netns || op.ifname !== removal.ifname) return false;
  if (removal.op === 'filter.del') return op.op === 'filter.add';
  const at = op.op === 'qdisc.add' && (op.qdisc.kind === 'tbf' ? 'root' : 'ingress');
  return removal.op === 'qdisc.del' && removal.at === at;
}

/** All the ways in which a host is not what is wanted, at once; none when it is. */
export function check(observed: Host, desired: DesiredHost): Finding[] {
  const findings: Finding[] = [];
  const said = new Set<string>();
  const ops = order(diff(observed, desired));
  for (const op of ops) {
    if (ops.some((each) => replaces(each, op))) continue;
    if (op.op !== 'link.set' && isOfMissingLink(observed, op)) continue;
    if (op.op === 'link.set' && isOfMissingLink(observed, op) && said.size > 0) continue;
    for (const { netns, text } of [...statements(observed, op), ...farEnd(observed, op)]) {
      const line = `${netns} ${text}`;
      if (said.has(line)) continue;
      said.add(line);
      const before = ops.filter((each) => replaces(op, each)).flatMap(describeOp);
      findings.push({ netns, text, repair: [...before, ...describeOp(op)] });
    }
  }
  return findings;
}

/** A finding as a line of text. */
export function formatFinding({ netns, text }: Finding): string {
  return `netns "${netns}": ${text}`;
}
