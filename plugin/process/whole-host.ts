/** Everything of this machine that decides about packets, as it is now. */
import type { Backend, NetnsScope, Scope } from '../../backends/backend.ts';
import type { Host, NetnsName, SysctlKey } from '../../model/host.ts';
import { decidingSysctls } from '../../sim/sysctls.ts';

const LINKS_ONLY: NetnsScope = { links: 'all', routes: 'none', sysctls: [], nftables: [] };

function everything(sysctls: readonly SysctlKey[]): NetnsScope {
  return {
    links: 'all',
    routes: 'all',
    policyRules: true,
    fdb: true,
    vlans: true,
    trafficControl: true,
    sysctls,
    nftables: 'all',
  };
}

/** The state of these netns; one that is not there is not in it. */
export function observeWhole(backend: Backend, names: readonly NetnsName[]): Host {
  // Settings are per link, so the links have to be known first.
  const links = backend.observe(Object.fromEntries(names.map((name) => [name, LINKS_ONLY])));
  const scope: Scope = Object.fromEntries(
    Object.entries(links.netns).map(([name, netns]) => [
      name,
      everything(decidingSysctls(Object.values(netns.links).map(({ ifname }) => ifname))),
    ]),
  );
  return backend.observe(scope);
}
