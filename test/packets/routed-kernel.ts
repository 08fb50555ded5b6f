/** The routed host on the kernel, with somebody in each of its netns who answers and asks. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { join } from 'node:path';
import { type Interface, createInterface } from 'node:readline';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import type { NetnsName } from '../../model/host.ts';
import type { Op } from '../../model/op.ts';
import { type Places, makePlaces, placeOp } from '../differential/place.ts';
import { ROUTED, ROUTED_OPS, ROUTED_SENDERS } from '../sim/hosts.ts';
import { LISTEN_PORT } from '../sim/rulesets.ts';
import type { Question, Reached } from './prober.ts';

/** How long an answer may take. */
const WAIT_MS = 300;

/** What a netns takes over from the host (K-2.2), limits on errors (K-7.8), and what would need time. */
const PINS: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    [
      'rp_filter',
      'arp_ignore',
      'arp_filter',
      'proxy_arp',
      'accept_local',
      'route_localnet',
    ].flatMap((name) => ['all', 'default', 'lo'].map((of) => [`net/ipv4/conf/${of}/${name}`, '0'])),
  ),
  'net/ipv6/conf/default/accept_dad': '0',
  'net/ipv6/conf/default/router_solicitations': '0',
  'net/ipv4/icmp_ratemask': '0',
  'net/ipv6/icmp/ratelimit': '0',
  'net/bridge/bridge-nf-call-iptables': '0',
  'net/bridge/bridge-nf-call-ip6tables': '0',
};

/** Somebody in a netns. */
class Prober {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: Interface;

  constructor(netns: NetnsName) {
    const script = join(import.meta.dirname, 'prober.ts');
    const command = [
      'netns',
      'exec',
      netns,
      process.execPath,
      script,
      `${LISTEN_PORT}`,
      `${WAIT_MS}`,
    ];
    this.#child = spawn('ip', command);
    this.#child.stderr.on('data', (data: Buffer) => process.stderr.write(data));
    this.#lines = createInterface({ input: this.#child.stdout });
  }

  #line(): Promise<string> {
    return new Promise((resolve, reject) => {
      const fail = (): void => reject(new Error('whoever answers in a netns has ended'));
      this.#lines.once('close', fail);
      this.#lines.once('line', (line) => {
        this.#lines.off('close', fail);
        resolve(line);
      });
    });
  }

  ready(): Promise<unknown> {
    return this.#line();
  }

  async ask(questions: readonly Question[]): Promise<readonly Reached[]> {
    const line = this.#line();
    this.#child.stdin.write(`${JSON.stringify(questions)}\n`);
    return JSON.parse(await line) as Reached[];
  }

  end(): void {
    this.#child.stdin.end();
    this.#child.kill();
  }
}

/** The routed host on the kernel. */
export interface RoutedHost {
  readonly places: Places;
  /** Carries out an operation; throws where the kernel refuses it. */
  readonly execute: (op: Op) => void;
  readonly tearDown: () => void;
}

/** The same, with somebody to ask. */
export interface RoutedKernel extends RoutedHost {
  /** What becomes of the questions of each netns, all asked at once. */
  readonly ask: (
    questions: Readonly<Record<NetnsName, readonly Question[]>>,
  ) => Promise<Readonly<Record<NetnsName, readonly Reached[]>>>;
}

/** Builds its netns and what is in them. */
export function buildHost(): RoutedHost {
  const places = makePlaces(ROUTED_SENDERS);
  const backend = makeLinuxBackend();
  const execute = (op: Op): void => {
    const fault = backend.execute(placeOp(op, places));
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
      for (const family of ['ipv4', 'ipv6'])
        execute({
          op: 'sysctl.set',
          netns,
          // Whom they know they know until the end.
          key: `net/${family}/neigh/${ifname}/base_reachable_time_ms`,
          value: '3600000',
        });
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

/** Builds it with somebody in each netns, which takes about a second. */
export async function buildRouted(): Promise<RoutedKernel> {
  const host = buildHost();
  const probers = new Map(ROUTED_SENDERS.map((name) => [name, new Prober(host.places.real(name))]));
  await Promise.all([...probers.values()].map((prober) => prober.ready()));
  return {
    ...host,
    ask: async (questions) => {
      const answers = await Promise.all(
        Object.entries(questions).map(
          async ([name, list]) => [name, (await probers.get(name)?.ask(list)) ?? []] as const,
        ),
      );
      return Object.fromEntries(answers);
    },
    tearDown: () => {
      for (const prober of probers.values()) prober.end();
      host.tearDown();
    },
  };
}
