/** Everything that is wrong with a host, by all questions there are. */
import type { Host } from '../../model/host.ts';
import type { LinkRef } from '../../model/link.ts';
import type { LegacyTables } from '../legacy-table.ts';
import { changingBridgeMacs } from './bridge-mac.ts';
import { missingDefaultRoutes } from './default-route.ts';
import { duplicateAddresses } from './duplicate-address.ts';
import { duplicateMacs } from './duplicate-mac.ts';
import { unaffected, unexplained } from './explained.ts';
import { type HostFinding, bySeverity } from './finding.ts';
import { missingForwarding } from './forwarding.ts';
import { lostGateways } from './gateway.ts';
import { disabledIpv6 } from './ipv6-disabled.ts';
import { downLinks } from './link-down.ts';
import { type Look, lookAt, without } from './look.ts';
import { masqueradedPods } from './masquerade.ts';
import { mtuMismatches } from './mtu.ts';
import { overlappingSubnets } from './overlapping-subnets.ts';
import { rulesOfEmptyTables } from './policy-rules.ts';
import { portsWithoutMaster } from './port-without-master.ts';
import { missingPrefixRoutes } from './prefix-route.ts';
import { askAll, unreachablePods } from './reachability.ts';
import { reversePathDrops } from './reverse-path.ts';
import { staleFdbEntries, staleNeighbours } from './stale-entries.ts';
import { unnamedNetns } from './unnamed-netns.ts';
import { unreadTables } from './unread-table.ts';
import { untranslatedAnswers } from './untranslated-answers.ts';
import { missingRemotes } from './vxlan-remote.ts';

type Find = (look: Look) => readonly HostFinding[];

/** Those about links that carry nothing, by which much else is lost. */
const OF_LINKS: readonly Find[] = [downLinks, portsWithoutMaster];

/** Those that a look at the state answers. */
const OF_STATE: readonly Find[] = [
  duplicateAddresses,
  duplicateMacs,
  missingForwarding,
  reversePathDrops,
  disabledIpv6,
  staleNeighbours,
  staleFdbEntries,
  missingRemotes,
  missingDefaultRoutes,
  missingPrefixRoutes,
  overlappingSubnets,
  mtuMismatches,
  changingBridgeMacs,
  rulesOfEmptyTables,
  unnamedNetns,
];

function isSame(a: HostFinding, b: HostFinding): boolean {
  return a.netns === b.netns && a.object === b.object;
}

/** The links that findings name, by which others may have lost what they have not. */
function linksIn(look: Look, findings: readonly HostFinding[]): LinkRef[] {
  return look.links.filter(({ netns, ifname }) =>
    findings.some((each) => each.netns === netns && each.object === `link ${ifname}`),
  );
}

/** A setting that several pods suffer from is one finding. */
function once(findings: readonly HostFinding[]): HostFinding[] {
  return findings.filter(
    (each, index) =>
      findings.findIndex((other) => isSame(other, each) && other.kind === each.kind) === index,
  );
}

/**
 * All findings about a host, the worst first. What follows from another finding is not one of its own, as far as that can be told.
 * Equal hosts, with equal tables of iptables-legacy, give equal findings.
 */
export function findingsOf(host: Host, legacyTables: LegacyTables = {}): HostFinding[] {
  const look = lookAt(host);
  const silent = OF_LINKS.flatMap((find) => find(look));
  const rest = without(look, linksIn(look, silent));
  const ofState = OF_STATE.flatMap((find) => find(look));
  const seen = once([...silent, ...ofState, ...unexplained(look, lostGateways(rest), ofState)]);
  const answered = unaffected(look, askAll(rest, legacyTables), ofState);
  const lost = unreachablePods(answered).filter(
    (finding) => !seen.some((each) => isSame(each, finding)),
  );
  const others = [
    ...untranslatedAnswers(rest, legacyTables),
    ...masqueradedPods(look, answered),
    ...unreadTables(legacyTables),
  ];
  return bySeverity([...seen, ...lost, ...others]);
}
