import { hasIpv6, routesOfAddress } from '../connected.ts';
import { addRoutes } from '../fib.ts';
import { type Host, type SysctlKey, getNetns, withNetns } from '../host.ts';
import { familyOf } from '../ip.ts';
import { flushIpv6, startIpv6 } from '../ipv6-link.ts';
import { holdsIpv6 } from '../link.ts';
import { type OpKind, done, refuse } from '../op.ts';
import { isPlain, quoteForShell } from '../shell.ts';
import { splitLinkSysctl, storedSysctl, sysctlsWritten } from '../sysctl.ts';

/** Writes a sysctl of the netns. */
export interface SysctlSet {
  readonly key: SysctlKey;
  readonly value: string;
}

/** IPv6 stops or starts on the links whose `disable_ipv6` changed (K-4.3). */
function settleIpv6(before: Host, after: Host, name: string): Host {
  let host = after;
  for (const link of Object.values(getNetns(before, name).links)) {
    const had = hasIpv6(getNetns(before, name), link);
    const has = hasIpv6(getNetns(after, name), link);
    const ref = { netns: name, ifname: link.ifname };
    if (had && !has) host = flushIpv6(host, ref);
    if (!had && has) host = startIpv6(host, ref);
  }
  return host;
}

/** A link that forwards IPv6 answers to the anycast address of its prefixes (addrconf.c, dev_forward_change). */
function settleAnycast(host: Host, name: string): Host {
  const netns = getNetns(host, name);
  const wanted = Object.values(netns.links).flatMap((link) =>
    link.addresses
      .filter((a) => familyOf(a.ip) === 6)
      .flatMap((a) => routesOfAddress(netns, link, a).filter((r) => r.type === 'anycast')),
  );
  const same = (a: (typeof wanted)[number], b: (typeof wanted)[number]): boolean =>
    a.destination === b.destination && a.device === b.device;
  const unique = wanted.filter((r, i) => wanted.findIndex((w) => same(w, r)) === i);
  const routes = netns.routes.filter((r) => r.type !== 'anycast' || unique.some((w) => same(w, r)));
  return addRoutes(withNetns(host, name, { ...netns, routes }), name, unique);
}

export const sysctlSet: OpKind<'sysctl.set'> = {
  apply: (host, { netns: name, key, value }) => {
    const netns = getNetns(host, name);
    const link = splitLinkSysctl(key);
    if (link && link.of !== 'all' && link.of !== 'default') {
      const owner = netns.links[link.of];
      if (!owner || (link.family === 6 && !holdsIpv6(owner))) return refuse('ENOENT');
    }
    const stored = storedSysctl(key, value);
    if (stored === undefined) return refuse('EINVAL');
    const sysctls = { ...netns.sysctls };
    for (const written of sysctlsWritten(netns, key, stored)) sysctls[written] = stored;
    const after = withNetns(host, name, { ...netns, sysctls });
    if (key.endsWith('/disable_ipv6')) return done(settleIpv6(host, after, name));
    return done(
      link?.family === 6 && link.name === 'forwarding' ? settleAnycast(after, name) : after,
    );
  },
  describe: ({ key, value }) => [
    isPlain(value) && isPlain(key) && !/\s/.test(key)
      ? `sysctl -w ${key}="${value}"`
      : `sysctl -w ${quoteForShell(`${key}=${value}`)}`,
  ],
  sign: () => '~',
  reads: ({ netns, key }) => {
    const link = splitLinkSysctl(key);
    return link && link.of !== 'all' && link.of !== 'default'
      ? [`link ${netns}/${link.of}`]
      : [`netns ${netns}`];
  },
  writes: ({ netns, key }) => {
    const link = splitLinkSysctl(key);
    return link
      ? [`sysctl ${netns}/${key}`, `conf ${netns}/${link.of}`]
      : [`sysctl ${netns}/${key}`];
  },
  removes: () => [],
};
