/** The routed host on the kernel, with somebody in each of its netns who answers and asks. */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { executeOp } from '../../backends/linux/executors.ts';
import { Kernel } from '../../backends/linux/kernel.ts';
import { isFault } from '../../backends/linux/socket.ts';
import { readSysctls } from '../../backends/linux/sysctl.ts';
import type { Host, NetnsName } from '../../model/host.ts';
import type { Op } from '../../model/op.ts';
import { type Places, makePlaces, placeOp } from '../differential/place.ts';
import { clearNetns } from '../differential/program-run.ts';
import { ROUTED, ROUTED_OPS, ROUTED_SENDERS, carriedOut } from '../sim/hosts.ts';
import { LISTEN_PORT } from '../sim/rulesets.ts';
import { flushConnections, flushRoutes, flushRuleset } from './flush.ts';
import { inNetns } from './sockets.ts';
import { type Answer, type Question, Stations } from './stations.ts';
import { together } from './turns.ts';

type Sysctls = readonly (readonly [key: string, value: string])[];

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

function neighbourPins(ifname: string): Sysctls {
  return ['ipv4', 'ipv6'].flatMap((family) =>
    Object.entries(NEIGHBOUR_PINS).map(
      ([name, value]) => [`net/${family}/neigh/${ifname}/${name}`, value] as const,
    ),
  );
}

/** What a link of a netns is told of its neighbours. */
export function neighbourOps(netns: NetnsName, ifname: string): readonly Op[] {
  return neighbourPins(ifname).map(([key, value]) => ({ op: 'sysctl.set', netns, key, value }));
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
  readonly flush: {
    /** Of netns node. */
    readonly ruleset: () => void;
    /** Of netns node. */
    readonly connections: () => void;
    readonly routes: (netns: NetnsName) => void;
  };
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

/** Of `net/ipv4/conf/all/rp_filter` it is `net/ipv4`. */
function folderOf(key: string): string {
  return key.split('/').slice(0, 2).join('/');
}

/** Writes sysctls of the netns that the thread is in, each by way of its protocol's folder: to find that takes long where there are many netns (fs/proc/proc_sysctl.c, proc_sys_compare). */
function writeHere(sysctls: Sysctls): void {
  for (const [folder, inside] of Map.groupBy(sysctls, ([key]) => folderOf(key))) {
    const fd = openSync(`/proc/sys/${folder}`, 'r');
    try {
      for (const [key, value] of inside)
        writeFileSync(`/proc/self/fd/${fd}/${key.slice(folder.length + 1)}`, value);
    } finally {
      closeSync(fd);
    }
  }
}

/** Writes sysctls in one visit to the netns. */
function writeSysctls(netns: NetnsName, sysctls: Sysctls): void {
  inNetns(netns, () => writeHere(sysctls));
}

/** Which pins a netns has not from its birth: the same of all on a machine, so that they are read in the first. */
let unborn: Sysctls | undefined;

function unbornPins(netns: NetnsName): Sysctls {
  const born = inNetns(netns, () => readSysctls(Object.keys(PINS)));
  if (isFault(born)) throw new Error(`${netns}: ${born.errno}`);
  return Object.entries(PINS).filter(([key, value]) => born[key] !== value);
}

/** Builds its netns and what is in them. */
export function buildHost(): RoutedHost {
  const places = makePlaces(ROUTED_SENDERS);
  const kernel = new Kernel();
  const execute = (op: Op): void => {
    let fault = executeOp(kernel, placeOp(op, places));
    for (let tries = 0; op.op === 'fdb.add' && fault?.errno === 'EEXIST' && tries < 5; tries += 1) {
      forgetLearned(places.real(op.netns));
      fault = executeOp(kernel, placeOp(op, places));
    }
    if (fault) throw new Error(`${JSON.stringify(op)}: ${fault.errno} ${fault.text}`);
  };
  for (const op of ROUTED_OPS) {
    execute(op);
    if (op.op !== 'netns.add') continue;
    const netns = places.real(op.netns);
    unborn ??= unbornPins(netns);
    writeSysctls(netns, unborn);
  }
  for (const [netns, { links }] of Object.entries(ROUTED.netns))
    writeSysctls(places.real(netns), Object.keys(links).flatMap(neighbourPins));
  return {
    places,
    execute,
    flush: {
      ruleset: () => flushRuleset(kernel, places.real('node')),
      connections: () => flushConnections(kernel, places.real('node')),
      routes: (netns) => flushRoutes(kernel, places.real(netns)),
    },
    tearDown: () => {
      kernel.close();
      clearNetns(ROUTED_SENDERS.map(places.real));
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
      return together((leave) => stations.ask(placed, waitMs, leave));
    },
    tearDown: () => {
      stations.close();
      host.tearDown();
    },
  };
}
