/** Everything of this machine that decides about packets, as it is now. */
import type { Backend, NetnsScope, Scope } from '../../backends/backend.ts';
import type { LinuxChoice } from '../../backends/linux/linux.ts';
import { FOREIGN } from '../../backends/linux/nftables-foreign.ts';
import type { Host, NetnsName } from '../../model/host.ts';
import { decidingSysctls } from '../../sim/sysctls.ts';
import { withChosenMacs } from './bridge-macs.ts';

/** For who reads everything: the rules of others too, and which kernel it is. */
export const WHOLE: LinuxChoice = { tellsRelease: true, foreign: FOREIGN };

const EVERYTHING: NetnsScope = {
  links: 'all',
  routes: 'all',
  policyRules: true,
  fdb: true,
  vlans: true,
  trafficControl: true,
  sysctls: [],
  nftables: 'all',
};

const SETTINGS: NetnsScope = { links: [], routes: 'none', sysctls: [], nftables: [] };

/** The state of these netns; one that is not there, or goes meanwhile, is not in it. */
export function observeWhole(backend: Backend, names: readonly NetnsName[]): Host {
  const host = backend.observe(Object.fromEntries(names.map((name) => [name, EVERYTHING])));
  // Settings are per link, so the links have to be known first.
  const scope: Scope = Object.fromEntries(
    Object.entries(host.netns).map(([name, { links }]) => {
      const ifnames = Object.values(links).map(({ ifname }) => ifname);
      return [name, { ...SETTINGS, sysctls: decidingSysctls(ifnames) }];
    }),
  );
  const settings = backend.observe(scope);
  const netns = Object.entries(host.netns).flatMap(([name, state]) => {
    const sysctls = settings.netns[name]?.sysctls;
    return sysctls ? [[name, { ...state, sysctls }] as const] : [];
  });
  return withChosenMacs({ ...host, netns: Object.fromEntries(netns) });
}
