import * as z from 'zod/mini';
import type { Scope } from '../../backends/backend.ts';
import { formatKernel } from '../../model/kernel-profile.ts';
import type { Op } from '../../model/op.ts';
import { countOps, stepsOf } from '../../model/plan-text.ts';
import type { Plan } from '../../model/plan.ts';
import { isNetSysctl } from '../../model/sysctl.ts';
import { VLAN_ID_MAX, VLAN_ID_MIN } from '../../model/vlan.ts';
import type { ReachChange } from '../../sim/reach-change.ts';
import type { Attachment } from '../attachment.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import { ifname, ip, mac, prefix } from './values.ts';

/** The version of the format: the number before the point changes when a reader of the old one would go wrong. */
const PLAN_FORMAT_VERSION = '1.0';

/** A plan as `--plan=json` writes it and `cube-cni apply` reads it. */
export interface PlanFile {
  readonly verb: 'ADD' | 'DEL' | 'CHECK';
  readonly plan: Plan;
  /** What was read to compute it. */
  readonly scope: Scope;
  /** Undefined: there was no such attachment, and nothing to do. */
  readonly attachment: Attachment | undefined;
  /** For who reads it; `apply` does not. */
  readonly reach?: ReachChange;
}

const name = z
  .string()
  .check(z.regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/, 'it has characters that a name cannot have'));

const port = z.int().check(z.minimum(1), z.maximum(65_535));
const vlanId = z.int().check(z.minimum(VLAN_ID_MIN), z.maximum(VLAN_ID_MAX));
const vlanRange = z.strictObject({
  first: vlanId,
  last: vlanId,
  pvid: z.boolean(),
  untagged: z.boolean(),
});

const sysctls = z.record(z.string().check(z.refine(isNetSysctl)), z.string());

const positive = z.int().check(z.minimum(1));
const bucket = z.strictObject({ rateBytes: positive, burstBytes: positive, limitBytes: positive });

/** What packets have to be to pass a door. */
const condition = z.union([
  z.strictObject({
    kind: z.literal('match'),
    field: z.enum(['ip saddr', 'ip daddr', 'ip6 saddr', 'ip6 daddr']),
    negate: z.boolean(),
    value: z.union([ip, prefix]),
  }),
  z.strictObject({
    kind: z.literal('match'),
    field: z.literal('iifname'),
    negate: z.boolean(),
    value: ifname,
  }),
]);

const door = z.strictObject({
  name: z.string().check(z.regex(/^[0-9a-f]{8}$/, 'it is no name of a door')),
  markBit: z.int().check(z.minimum(0), z.maximum(31)),
  conditions: z.strictObject({ 4: z.array(condition), 6: z.array(condition) }),
});

/** The netns is a path that the runtime gave, or a name of `ip netns`. */
const attachment = z.strictObject({
  key: z.strictObject({ network: name, containerId: name, ifname }),
  netns: z.string().check(z.minLength(1)),
  bridge: ifname,
  bridgeMac: mac,
  promiscuous: z.boolean(),
  hostIfname: ifname,
  hostMac: mac,
  podMac: mac,
  mtuBytes: z.int().check(z.minimum(68), z.maximum(65535)),
  mode: z.exactOptional(z.literal('ptp')),
  hairpin: z.boolean(),
  isolated: z.exactOptional(z.literal(true)),
  vlans: z.exactOptional(
    z.strictObject({
      ranges: z.array(vlanRange),
      keepsDefault: z.exactOptional(z.literal(true)),
      gateway: z.exactOptional(z.strictObject({ ifname, mac, portIfname: ifname, portMac: mac })),
    }),
  ),
  gateway: z.boolean(),
  forceAddress: z.boolean(),
  masquerade: z.boolean(),
  dad: z.exactOptional(z.literal(true)),
  podDown: z.exactOptional(z.literal(true)),
  macSpoofCheck: z.exactOptional(z.literal(true)),
  ipSpoofCheck: z.exactOptional(z.literal(true)),
  verdict: z.exactOptional(z.enum(['accept', 'drop'])),
  bandwidth: z.exactOptional(
    z.strictObject({
      ingress: z.exactOptional(bucket),
      egress: z.exactOptional(bucket),
      ifb: z.exactOptional(z.strictObject({ ifname, mac, group: z.exactOptional(positive) })),
    }),
  ),
  tuning: z.exactOptional(
    z.strictObject({
      sysctls: z.exactOptional(sysctls),
      before: z.exactOptional(sysctls),
      promiscuous: z.exactOptional(z.literal(true)),
      allMulticast: z.exactOptional(z.literal(true)),
      txQueueLength: z.exactOptional(z.int()),
    }),
  ),
  ingressPolicy: z.exactOptional(z.enum(['same-bridge', 'isolated'])),
  adoptForward: z.exactOptional(z.literal(true)),
  hostPorts: z.exactOptional(
    z.strictObject({
      ports: z.array(
        z.strictObject({
          protocol: z.enum(['tcp', 'udp', 'sctp']),
          port,
          hostIp: z.nullable(ip),
          podIp: ip,
          podPort: port,
        }),
      ),
      door: z.exactOptional(door),
      sourceNat: z.exactOptional(z.enum(['subnet', 'all'])),
    }),
  ),
  addresses: z.array(
    z.strictObject({
      ip,
      prefixLength: z.int().check(z.minimum(0), z.maximum(128)),
      gateway: z.nullable(ip),
      subnet: z.exactOptional(prefix),
    }),
  ),
  routes: z.array(
    z.strictObject({
      destination: prefix,
      gateway: z.nullable(ip),
      mtuBytes: z.exactOptional(z.int()),
      advmssBytes: z.exactOptional(z.int()),
      metric: z.exactOptional(z.int()),
      table: z.exactOptional(z.int()),
      scope: z.exactOptional(z.int()),
    }),
  ),
  dns: z.exactOptional(
    z.strictObject({
      nameservers: z.exactOptional(z.array(z.string())),
      domain: z.exactOptional(z.string()),
      search: z.exactOptional(z.array(z.string())),
      options: z.exactOptional(z.array(z.string())),
    }),
  ),
  ipam: z.exactOptional(z.strictObject({ type: z.string(), stdin: z.string() })),
  madeBy: z.exactOptional(z.literal('reference chain')),
});

const file = z.object({
  formatVersion: z.string().check(z.regex(/^\d+\.\d+$/, 'it is no version')),
  verb: z.enum(['ADD', 'DEL', 'CHECK']),
  attachment: z.nullable(attachment),
  before: z.record(z.string(), z.unknown()),
  operations: z.array(z.record(z.string(), z.unknown())),
});

/** What `apply` takes from a saved plan: it computes the plan anew and goes on only when it is this one. */
export interface SavedPlan {
  readonly verb: PlanFile['verb'];
  readonly attachment: Attachment | null;
  /** The host as it was read, as JSON. */
  readonly before: unknown;
  readonly operations: unknown;
}

/** The text of a plan file. */
export function formatPlanFile({ verb, plan, scope, attachment: made, reach }: PlanFile): string {
  const value = {
    formatVersion: PLAN_FORMAT_VERSION,
    verb,
    kernel: formatKernel(plan.before.kernel),
    summary: countOps(plan.ops),
    attachment: made ?? null,
    operations: plan.ops satisfies readonly Op[],
    effects: stepsOf(plan).map(({ effects }) => effects),
    ...(reach ? { reach } : {}),
    scope,
    before: plan.before,
  };
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** Reads a plan file; throws a CniError that names what is wrong with it. */
export function parsePlanFile(text: string): SavedPlan {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (error) {
    throw new CniError(
      CNI_ERROR.decode,
      `the plan is not JSON: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  const outcome = file.safeParse(raw);
  if (!outcome.success) {
    const [issue] = outcome.error.issues;
    throw new CniError(
      CNI_ERROR.decode,
      `not a plan: ${issue?.path.join('.') || 'the file'}: ${issue?.message}`,
    );
  }
  const [major] = PLAN_FORMAT_VERSION.split('.');
  if (outcome.data.formatVersion.split('.')[0] !== major) {
    throw new CniError(
      CNI_ERROR.decode,
      `the plan has format ${outcome.data.formatVersion}; this executable reads format ${major}.x`,
    );
  }
  return outcome.data;
}
