/** A host as single statements, so that two hosts can be compared statement by statement. */
import type { Host, NetnsName } from './host.ts';
import type { Key } from './op.ts';
import { describeRoute } from './ops/route-add.ts';
import { formatPrefixedIp } from './prefix.ts';
import { TABLE_LOCAL, routeKey } from './route.ts';

/** Something that holds of a netns. */
export interface Fact {
  readonly netns: NetnsName;
  /** What it is about, as operations name it among the keys that they write. */
  readonly subject: Key;
  /** The statement, in the words of `ip`. */
  readonly text: string;
  /** Routes of the table local follow from addresses: they are counted, not listed. */
  readonly kind: 'link' | 'attribute' | 'address' | 'route' | 'local route';
}

/** Everything that links, addresses and routes of a host say. */
export function factsOf(host: Host): Fact[] {
  return Object.entries(host.netns).flatMap(([netns, state]) => {
    const facts: Fact[] = [];
    for (const link of Object.values(state.links)) {
      const at = `${netns}/${link.ifname}`;
      facts.push({ netns, subject: `link ${at}`, text: `link ${link.ifname}`, kind: 'link' });
      const attribute = (text: string): void => {
        facts.push({
          netns,
          subject: `attribute ${at}`,
          text: `${text} on ${link.ifname}`,
          kind: 'attribute',
        });
      };
      if (link.mac !== null) attribute(`address ${link.mac}`);
      attribute(`mtu ${link.mtuBytes}`);
      if (link.port) attribute(`master ${link.port.master}`);
      for (const address of link.addresses) {
        facts.push({
          netns,
          subject: `address ${at}/${address.ip}`,
          text: `address ${formatPrefixedIp(address)} dev ${link.ifname}`,
          kind: 'address',
        });
      }
    }
    for (const route of state.routes) {
      const text = `route ${describeRoute({ ...route, protocol: 3 })}`;
      const kind = route.table === TABLE_LOCAL ? 'local route' : 'route';
      facts.push({
        netns,
        subject: `route ${netns}/${routeKey(route)}`,
        text: kind === 'route' ? text : `${route.type} ${text}`,
        kind,
      });
    }
    return facts;
  });
}
