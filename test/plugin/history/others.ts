/** What others have done to a node that decides about its pods' packets, told by the shadow, where they did only that. */
import {
  HOST_NETNS,
  type Netns,
  type NetnsName,
  findNetns,
  getNetns,
} from '../../../model/host.ts';
import { type Family, type Ip, familyOf } from '../../../model/ip.ts';
import type { Link } from '../../../model/link.ts';
import { policyRulesOf } from '../../../model/policy-rule.ts';
import { prefixContains } from '../../../model/prefix.ts';
import type { Node } from './node.ts';

/** What of others keeps configurations from telling who reaches whom. */
export type Disturbance =
  | 'policy rules of others'
  | 'settings by others'
  | 'a bridge that others have changed'
  | 'routes of others'
  | 'no netns';

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** What of a bridge decides about frames. */
function decisive(link: Link | undefined): unknown {
  if (!link) return undefined;
  const { kind, up, mac, port, neighbours, addresses } = link;
  const own = link.kind === 'bridge' ? [link.vlans, link.fdb] : [];
  return [kind, up, mac, port, neighbours, addresses, ...own];
}

function rulesOf(netns: Netns, family: Family): unknown {
  return policyRulesOf(netns).filter((rule) => rule.family === family);
}

/** What others have done in a netns to packets of a family, but for their routes, since it was as in `initial`. */
function changedIn(
  { shadow, initial, used }: Node,
  name: NetnsName,
  family: Family,
): Disturbance | undefined {
  const [now, then] = [findNetns(shadow, name), findNetns(initial, name)];
  if (!now || !then) return 'no netns';
  if (!isSame(rulesOf(now, family), rulesOf(then, family))) return 'policy rules of others';
  const ofOther = `net/ipv${family === 4 ? 6 : 4}/`;
  const decides = ([key, value]: readonly [string, string]): boolean =>
    !key.startsWith(ofOther) && now.sysctls[key] !== value;
  if (Object.entries(then.sysctls).some(decides)) return 'settings by others';
  const bridges = name === HOST_NETNS ? [...used] : [];
  return bridges.some((each) => !isSame(decisive(now.links[each]), decisive(then.links[each])))
    ? 'a bridge that others have changed'
    : undefined;
}

/** What others have done that may decide about packets between these netns and the host, from and to these addresses of one family. */
export function disturbance(
  node: Node,
  names: readonly NetnsName[],
  ips: readonly [Ip, ...Ip[]],
): Disturbance | undefined {
  for (const name of [HOST_NETNS, ...names]) {
    const changed = changedIn(node, name, familyOf(ips[0]));
    if (changed) return changed;
    const { routes } = getNetns(node.shadow, name);
    if (routes.some(({ destination }) => ips.some((ip) => prefixContains(destination, ip))))
      return 'routes of others';
  }
  return undefined;
}
