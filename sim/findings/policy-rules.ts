/** Policy rules that ask a table in which there is nothing: they are passed over (K-5.4). */
import type { Netns } from '../../model/host.ts';
import { type PolicyRule, formatPolicyRule, policyRulesOf } from '../../model/policy-rule.ts';
import { TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN, routeFamily } from '../../model/route.ts';
import { within } from '../cause.ts';
import { type HostFinding, seen } from './finding.ts';
import type { Look } from './look.ts';

function isOfEmptyTable({ routes }: Netns, { family, table }: PolicyRule): boolean {
  return (
    table !== null &&
    ![TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN].includes(table) &&
    !routes.some((route) => route.table === table && routeFamily(route) === family)
  );
}

/** Rules that send packets to a table of their own, where they find no route. */
export function rulesOfEmptyTables({ host }: Look): HostFinding[] {
  return Object.entries(host.netns).flatMap(([netns, state]) =>
    policyRulesOf(state)
      // What more it says is not known: it may be there for the packets that it does not fit.
      .filter((rule) => rule.isPartlyRead !== true && isOfEmptyTable(state, rule))
      .map((rule) => {
        const family = rule.family === 6 ? ' -6' : '';
        return {
          // It is passed over, and may be there for routes that come and go.
          severity: 'note',
          kind: 'rule-of-empty-table',
          netns,
          object: `rule ${formatPolicyRule(rule)}`,
          text: `asks table ${rule.table}, which has no routes`,
          evidence: [seen(netns, `ip${family} route show table ${rule.table}: none`)],
          mend: [within(netns, `ip${family} rule del pref ${rule.priority}`)],
        };
      }),
  );
}
