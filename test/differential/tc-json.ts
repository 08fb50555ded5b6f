/** What `tc -j` prints of a netns, in the model's form. */
import { spawnSync } from 'node:child_process';
import type { Ifname } from '../../model/ifname.ts';
import type { Link } from '../../model/link.ts';
import type { IngressQdisc, RootQdisc, TrafficControl } from '../../model/traffic-control.ts';

interface QdiscJson {
  readonly kind: string;
  readonly handle: string;
  readonly dev: string;
  readonly root?: true;
  readonly options: { readonly rate?: number; readonly burst?: number; readonly lat?: number };
}

interface FilterJson {
  readonly options?: {
    readonly fh?: string;
    readonly actions?: readonly { readonly kind: string; readonly to_dev?: string }[];
  };
}

function run(place: string, ...args: string[]): unknown {
  const { status, stdout, stderr } = spawnSync('tc', ['-n', place, '-j', ...args], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`tc ${args.join(' ')}: ${stderr}`);
  return JSON.parse(stdout === '' ? '[]' : stdout);
}

/** tc counts in whole microseconds. */
const ROUNDING_US = 2;

/**
 * A limit that tc prints. It says how long bytes wait instead of how many may, and rounds: what we read is taken for
 * equal where that explains the difference.
 */
function rootOf({ kind, options }: QdiscJson, read: RootQdisc | undefined): RootQdisc {
  if (kind !== 'tbf') return { kind: 'other', name: kind };
  const { rate = 0, burst = 0, lat = 0 } = options;
  const roundingBytes = (rate * ROUNDING_US) / 1e6 + 1;
  const limit = ((lat / 1e6) * rate + burst) | 0;
  const theirs = { kind, rateBytes: rate, burstBytes: burst, limitBytes: limit } as const;
  if (read?.kind !== 'tbf' || read.rateBytes !== rate) return theirs;
  const waitUs = ((read.limitBytes - read.burstBytes) * 1e6) / rate;
  // Less than nothing is printed as a large number.
  const agrees =
    Math.abs(read.burstBytes - burst) <= roundingBytes &&
    (waitUs < 0 || Math.abs(waitUs - lat) <= ROUNDING_US + (2e6 * roundingBytes) / rate);
  return agrees ? read : theirs;
}

function ingressOf(place: string, { kind, dev }: QdiscJson): IngressQdisc {
  const filters = run(place, 'filter', 'show', 'dev', dev, 'ingress') as readonly FilterJson[];
  const ours = filters.find(({ options }) => options?.fh === '800::1');
  const ingress = { kind: kind === 'ingress' ? 'ingress' : 'clsact' } as const;
  const target = ours?.options?.actions?.find((action) => action.kind === 'mirred')?.to_dev;
  if (target === undefined) return ingress;
  return { ...ingress, redirect: target === '*' ? null : (target as Ifname) };
}

/** The traffic control of every link of a netns that has any, by name. `links` are those that we have read. */
export function readTrafficControl(
  place: string,
  links: Readonly<Record<string, Link>>,
): Map<string, TrafficControl> {
  const found = new Map<string, TrafficControl>();
  for (const qdisc of run(place, 'qdisc', 'show') as readonly QdiscJson[]) {
    if (qdisc.handle === '0:') continue;
    const part = qdisc.root
      ? { root: rootOf(qdisc, links[qdisc.dev]?.trafficControl?.root) }
      : { ingress: ingressOf(place, qdisc) };
    found.set(qdisc.dev, { ...found.get(qdisc.dev), ...part });
  }
  return found;
}
