import * as z from 'zod/mini';
import { ifnameProblem, type Ifname } from '../../model/ifname.ts';
import { findIp, type Ip } from '../../model/ip.ts';
import { type Prefix, parsePrefix } from '../../model/prefix.ts';
import { CNI_ERROR, CniError } from './error.ts';

/** Reads a text by a parser that throws, so that its message becomes the issue's. */
function parsed<T>(parse: (text: string) => T) {
  return z.pipe(
    z.string(),
    z.transform((text, context): T => {
      try {
        return parse(text);
      } catch (error) {
        context.issues.push({
          code: 'custom',
          message: error instanceof Error ? error.message : String(error),
          input: text,
        });
        return z.NEVER;
      }
    }),
  );
}

const ip = parsed((text): Ip => {
  const value = findIp(text);
  if (value === undefined) throw new Error(`"${text}" is not an IP address`);
  return value;
});

const prefix = parsed((text): Prefix => parsePrefix(text));

const linkName = parsed((text): Ifname => {
  const problem = ifnameProblem(text);
  if (problem !== undefined) throw new Error(`"${text}" cannot be a link name: ${problem}`);
  return text as Ifname;
});

const range = z.object({
  subnet: prefix,
  rangeStart: z.optional(ip),
  rangeEnd: z.optional(ip),
  gateway: z.optional(ip),
});

/** A range of addresses as the configuration gives it. */
export type ConfigRange = z.infer<typeof range>;

const ipam = z.object({
  type: z.literal('cube-ipam', {
    error: (issue) => `only the built-in "cube-ipam" is there, not ${JSON.stringify(issue.input)}`,
  }),
  ranges: z.optional(z.array(z.array(range).check(z.minLength(1, 'a range set needs a range')))),
  subnet: z.optional(prefix),
  rangeStart: z.optional(ip),
  rangeEnd: z.optional(ip),
  gateway: z.optional(ip),
  routes: z.optional(z.array(z.object({ dst: prefix, gw: z.optional(ip) }))),
});

/** ETH_MIN_MTU, below which the kernel makes no veth. */
const LINK_MTU_MIN_BYTES = 68;

const config = z.object({
  bridge: z._default(linkName, 'cni0' as Ifname),
  isGateway: z._default(z.boolean(), false),
  isDefaultGateway: z._default(z.boolean(), false),
  forceAddress: z._default(z.boolean(), false),
  ipMasq: z._default(z.boolean(), false),
  hairpinMode: z._default(z.boolean(), false),
  promiscMode: z._default(z.boolean(), false),
  mtu: z._default(z.int().check(z.minimum(0), z.maximum(65535)), 0),
  ipam,
});

/** A network's configuration, read and with its defaults. */
export type Config = z.infer<typeof config>;

/**
 * Keys of the reference bridge that change what a pod gets and are not there yet. To ignore them would
 * give a network that was not asked for, so that they are refused, unless they say what is so anyway.
 */
const NOT_YET: Readonly<Record<string, readonly unknown[]>> = {
  vlan: [0],
  vlanTrunk: [],
  macspoofchk: [false],
  enabledad: [false],
  disableContainerInterface: [false],
  portIsolation: [false],
  mac: [''],
};

/** JSON's null means that a key is not there, as Go reads it. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, part]) => part !== null)
      .map(([key, part]) => [key, withoutNulls(part)]),
  );
}

function formatPath(parts: readonly PropertyKey[]): string {
  return parts
    .map((part, i) =>
      typeof part === 'number' ? `[${part}]` : `${i > 0 ? '.' : ''}${String(part)}`,
    )
    .join('');
}

/** How much of a value a message shows. */
const SHOWN_LENGTH = 80;

/** What is wrong with a value; zod's own words come in a separate and large part of it. */
function explain(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.input === undefined) return 'it is missing';
  const shown = JSON.stringify(issue.input).slice(0, SHOWN_LENGTH);
  if (issue.code === 'invalid_type') return `it must be of type ${issue.expected}, not ${shown}`;
  if (issue.code === 'too_big') return `it must be at most ${issue.maximum}, not ${shown}`;
  if (issue.code === 'too_small') return `it must be at least ${issue.minimum}, not ${shown}`;
  return undefined;
}

function read(raw: Readonly<Record<string, unknown>>): Config {
  const outcome = config.safeParse(withoutNulls(raw), { error: explain });
  if (outcome.success) return outcome.data;
  const problems = outcome.error.issues.map(
    (issue) => `${formatPath(issue.path) || 'configuration'}: ${issue.message}`,
  );
  throw new CniError(
    CNI_ERROR.invalidConfig,
    `invalid network configuration: ${problems[0]}`,
    problems.slice(1).join('; '),
  );
}

/** Reads a configuration; throws an error of code 7, or 2 for a field that is not supported, which names the field. */
export function parseConfig(raw: Readonly<Record<string, unknown>>): Config {
  for (const [key, harmless] of Object.entries(NOT_YET)) {
    const value = raw[key];
    if (value !== undefined && value !== null && !harmless.includes(value)) {
      throw new CniError(
        CNI_ERROR.unsupportedField,
        `unsupported field: ${key} = ${JSON.stringify(value)}`,
      );
    }
  }
  const value = read(raw);
  if (value.hairpinMode && value.promiscMode) {
    throw new CniError(
      CNI_ERROR.invalidConfig,
      'cannot set hairpin mode and promiscuous mode at the same time',
    );
  }
  const { mtu } = value;
  if (mtu !== 0 && mtu < LINK_MTU_MIN_BYTES) {
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `invalid network configuration: mtu: it must be 0 or at least ${LINK_MTU_MIN_BYTES}, not ${mtu}`,
    );
  }
  const routes = value.ipam.routes?.map(({ dst }) => dst) ?? [];
  const twice = routes.find((dst, i) => routes.indexOf(dst) < i);
  if (twice !== undefined) {
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `invalid network configuration: ipam.routes: ${twice} is there twice`,
    );
  }
  return value;
}
