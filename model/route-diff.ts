/** What lies between the routes and policy rules of a netns and what is wanted of them. */
import { sameAddress } from './address.ts';
import { routesOfAddress } from './connected.ts';
import type { DesiredNetns } from './desired.ts';
import type { Netns, NetnsName } from './host.ts';
import type { StateOp } from './op.ts';
import { type PolicyRule, policyRulesOf, samePolicyRule } from './policy-rule.ts';
import { PROTOCOL_KERNEL, type Route, sameRouteKey } from './route.ts';

/** Fields that make a route what it is; who else has a route with the same key is in its way. */
function isSameRoute(a: Route, b: Route): boolean {
  return (
    sameRouteKey(a, b) &&
    a.gateway === b.gateway &&
    a.device === b.device &&
    a.source === b.source &&
    a.scope === b.scope &&
    a.protocol === b.protocol &&
    a.type === b.type &&
    a.onlink === b.onlink &&
    a.mtuBytes === b.mtuBytes &&
    a.advmssBytes === b.advmssBytes
  );
}

/** Connected routes of wanted addresses that somebody took away: the kernel puts them back only when the link goes down and up. */
function missingConnected(netns: Netns, want: DesiredNetns): Route[] {
  return Object.entries(want.links ?? {}).flatMap(([ifname, wish]) => {
    const link = netns.links[ifname];
    if (!link?.up || wish === 'absent' || wish.up === false) return [];
    const present = link.addresses.filter((a) =>
      wish.addresses?.present.some((w) => sameAddress(w, a)),
    );
    return present
      .flatMap((a) => routesOfAddress(netns, link, a))
      .filter(
        (r, i, all) =>
          r.type === 'unicast' &&
          // Several IPv6 addresses of a prefix have one route in common.
          all.findIndex((other) => sameRouteKey(other, r)) === i &&
          !netns.routes.some(
            (have) =>
              // Not the local route of an address that is its own prefix.
              have.type === r.type &&
              have.destination === r.destination &&
              have.device === r.device &&
              have.gateway === null,
          ),
      );
  });
}

/** The operations that give a netns the wanted routes; those of the kernel's own go only where they are in the way. */
export function diffRoutes(name: NetnsName, netns: Netns, want: DesiredNetns): StateOp[] {
  if (!want.routes) return [];
  const { present, others } = want.routes;
  const ops: StateOp[] = [];
  for (const have of netns.routes) {
    if (present.some((w) => isSameRoute(w, have))) continue;
    // Next to a wanted route that is there already, the kernel's own with its key stays too.
    const inTheWay = present.some(
      (w) => sameRouteKey(w, have) && !netns.routes.some((other) => isSameRoute(w, other)),
    );
    if (inTheWay || (others === 'remove' && have.protocol !== PROTOCOL_KERNEL))
      ops.push({ op: 'route.del', netns: name, route: have });
  }
  for (const route of [...missingConnected(netns, want), ...present]) {
    if (!netns.routes.some((have) => isSameRoute(have, route)))
      ops.push({ op: 'route.add', netns: name, route });
  }
  return ops;
}

/** The operations that give a netns the wanted policy rules. */
export function diffPolicyRules(name: NetnsName, netns: Netns, want: DesiredNetns): StateOp[] {
  if (!want.policyRules) return [];
  const { present, others } = want.policyRules;
  const have = policyRulesOf(netns);
  const isWanted = (rule: PolicyRule): boolean => present.some((w) => samePolicyRule(w, rule));
  const op = (kind: 'rule.add' | 'rule.del', rule: PolicyRule): StateOp => ({
    op: kind,
    netns: name,
    rule,
  });
  return [
    ...have
      .filter((rule) => others === 'remove' && !isWanted(rule))
      .map((rule) => op('rule.del', rule)),
    ...present
      .filter((rule) => !have.some((each) => samePolicyRule(each, rule)))
      .map((rule) => op('rule.add', rule)),
  ];
}
