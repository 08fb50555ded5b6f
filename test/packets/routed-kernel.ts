/** The routed host on the kernel, with somebody in each of its netns who answers and asks. */
import { spawnSync } from 'node:child_process';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import type { Host, NetnsName } from '../../model/host.ts';
import type { Op } from '../../model/op.ts';
import { type Places, makePlaces, placeOp } from '../differential/place.ts';
import { ROUTED, ROUTED_OPS, ROUTED_SENDERS, carriedOut } from '../sim/hosts.ts';
import { LISTEN_PORT } from '../sim/rulesets.ts';
import { type Answer, type Question, Stations } from './stations.ts';
import { together } from './turns.ts';

/** What a netns takes over from the host (K-2.2), limits on errors (K-7.8), what would need time, and what a sender would keep of a path. */
const PINS: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    [
      'rp_filter',
      'arp_ignore',
      'arp_filter',
      'proxy_arp',
      'accept_local',
      'route_localnet',
      // A router that sends by the link that it came in by tells of a shorter way, which is not followed (K-7.7).
      'accept_redirects',
    ].flatMap((name) => ['all', 'default', 'lo'].map((of) => [`net/ipv4/conf/${of}/${name}`, '0'])),
  ),
  'net/ipv6/conf/default/accept_dad': '0',
  'net/ipv6/conf/all/accept_redirects': '0',
  'net/ipv6/conf/default/accept_redirects': '0',
  'net/ipv6/conf/default/router_solicitations': '0',
  'net/ipv4/icmp_ratemask': '0',
  // Everybody may ping.
  'net/ipv4/ping_group_range': '0 2147483647',
  'net/ipv6/icmp/ratelimit': '0',
  // Nobody remembers what MTU it was told.
  'net/ipv4/route/mtu_expires': '0',
  'net/ipv6/route/mtu_expires': '0',
  'net/bridge/bridge-nf-call-iptables': '0',
  'net/bridge/bridge-nf-call-ip6tables': '0',
};

/** Whom they know they know until the end, and of whom does not answer they hear soon. */
const NEIGHBOUR_PINS = {
  base_reachable_time_ms: '3600000',
  delay_first_probe_time: '3600',
  retrans_time_ms: '20',
} as const;

/** What a link of a netns is told of its neighbours. */
export function neighbourOps(netns: NetnsName, ifname: string): readonly Op[] {
  return ['ipv4', 'ipv6'].flatMap((family) =>
    Object.entries(NEIGHBOUR_PINS).map(([name, value]): Op => ({
      op: 'sysctl.set',
      netns,
      key: `net/${family}/neigh/${ifname}/${name}`,
      value,
    })),
  );
}

/** A host all of whose links are told that. */
export function pinned(host: Host): Host {
  const ops = Object.entries(host.netns).flatMap(([netns, { links }]) =>
    Object.keys(links).flatMap((ifname) => neighbourOps(netns, ifname)),
  );
  return carriedOut(host, ops).host;
}

/** The routed host on the kernel. */
export interface RoutedHost {
  readonly places: Places;
  /** Carries out an operation; throws where the kernel refuses it. */
  readonly execute: (op: Op) => void;
  readonly tearDown: () => void;
}

/** The same, with somebody in each netns who answers and asks. */
export interface RoutedKernel extends RoutedHost {
  /** What becomes of questions that are all asked at once, in so much time. */
  readonly ask: (questions: readonly Question[], waitMs: number) => Promise<readonly Answer[]>;
}

/** What the kernel says by itself bridges learn from, and nobody may say again where that is. */
function forgetLearned(netns: string): void {
  for (const bridge of ['cni0', 'cni1'])
    spawnSync('ip', ['-n', netns, 'link', 'set', bridge, 'type', 'bridge', 'fdb_flush']);
}

/** Builds its netns and what is in them. */
export function buildHost(): RoutedHost {
  const places = makePlaces(ROUTED_SENDERS);
  const backend = makeLinuxBackend();
  const execute = (op: Op): void => {
    let fault = backend.execute(placeOp(op, places));
    for (let tries = 0; op.op === 'fdb.add' && fault?.errno === 'EEXIST' && tries < 5; tries += 1) {
      forgetLearned(places.real(op.netns));
      fault = backend.execute(placeOp(op, places));
    }
    if (fault) throw new Error(`${JSON.stringify(op)}: ${fault.errno} ${fault.text}`);
  };
  for (const op of ROUTED_OPS) {
    execute(op);
    if (op.op !== 'netns.add') continue;
    for (const [key, value] of Object.entries(PINS))
      execute({ op: 'sysctl.set', netns: op.netns, key, value });
  }
  for (const [netns, { links }] of Object.entries(ROUTED.netns))
    for (const ifname of Object.keys(links))
      for (const op of neighbourOps(netns, ifname)) execute(op);
  return {
    places,
    execute,
    tearDown: () => {
      backend.close();
      const cleaner = makeLinuxBackend();
      for (const name of ROUTED_SENDERS)
        cleaner.execute({ op: 'netns.del', netns: places.real(name) });
      cleaner.close();
    },
  };
}

/** Builds it with somebody in each netns. */
export function buildRouted(): RoutedKernel {
  const host = buildHost();
  const { real } = host.places;
  const stations = new Stations(ROUTED_SENDERS.map(real), LISTEN_PORT);
  return {
    ...host,
    ask: (questions, waitMs) => {
      const placed = questions.map((each) => ({ ...each, netns: real(each.netns) }));
      return together(() => stations.ask(placed, waitMs));
    },
    tearDown: () => {
      stations.close();
      host.tearDown();
    },
  };
}
