/** What follows from something that was found already, and is no finding of its own. */
import type { NetnsName } from '../../model/host.ts';
import type { Ip } from '../../model/ip.ts';
import { type Prefix, prefixContains, prefixIp } from '../../model/prefix.ts';
import type { HostFinding } from './finding.ts';
import type { Look } from './look.ts';
import type { Answered } from './reachability.ts';

/** The node that a netns hangs on, or itself: addresses mean the same only where the node is the same. */
function nodeOf({ pods }: Look, netns: NetnsName): NetnsName {
  return pods.find((pod) => pod.netns === netns)?.node ?? netns;
}

function isAffected(look: Look, by: readonly HostFinding[], netns: NetnsName, ip: Ip): boolean {
  const node = nodeOf(look, netns);
  return by.some(
    (each) =>
      each.affects?.some((prefix: Prefix) => prefixContains(prefix, ip)) === true &&
      nodeOf(look, each.netns) === node,
  );
}

/** Findings of which others affect all addresses. */
export function unexplained(
  look: Look,
  findings: readonly HostFinding[],
  by: readonly HostFinding[],
): HostFinding[] {
  return findings.filter(
    ({ netns, affects = [] }) =>
      affects.length === 0 ||
      !affects.every((prefix) => isAffected(look, by, netns, prefixIp(prefix))),
  );
}

/** Questions between addresses that no finding affects. */
export function unaffected(
  look: Look,
  answered: readonly Answered[],
  by: readonly HostFinding[],
): Answered[] {
  return answered.filter(
    ({ question: { from, source, destination } }) =>
      ![source, destination].some((ip) => isAffected(look, by, from.netns, ip)),
  );
}
