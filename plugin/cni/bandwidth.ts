/** The limits that a configuration or a runtime asks for (CONVENTIONS.md of the specification, "bandwidth"). */
import { tokenBucket } from '../../model/traffic-control.ts';
import type { Limits } from '../bandwidth.ts';
import type { Config } from './config.ts';
import { CNI_ERROR, CniError } from './error.ts';

/** Rates in bits a second and bursts in bits; ingress is what goes into the pod. 0 is the same as nothing. */
export interface BandwidthChoices {
  readonly ingressRate?: number;
  readonly ingressBurst?: number;
  readonly egressRate?: number;
  readonly egressBurst?: number;
}

const KEYS = ['ingressRate', 'ingressBurst', 'egressRate', 'egressBurst'] as const;

const AT = 'runtimeConfig.bandwidth';

function refuse(problem: string): never {
  throw new CniError(CNI_ERROR.invalidConfig, `invalid network configuration: ${problem}`);
}

/** Reads `runtimeConfig.bandwidth`, whose keys are in their canonical case; throws a CniError of code 7. */
export function readBandwidth(value: unknown): BandwidthChoices {
  if (value === undefined) return {};
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    refuse(`${AT}: it must be an object, not ${JSON.stringify(value).slice(0, 80)}`);
  const raw = value as Readonly<Record<string, unknown>>;
  return Object.fromEntries(
    KEYS.flatMap((key) => {
      const number = raw[key];
      if (number === undefined) return [];
      if (typeof number !== 'number' || !Number.isSafeInteger(number) || number < 0)
        refuse(`${AT}.${key}: it must be a number of bits, not ${JSON.stringify(number)}`);
      return [[key, number] as const];
    }),
  );
}

const BYTE_BITS = 8;
/** What a qdisc counts bytes with. */
const U32_MAX = 0xffff_ffff;
/** What an Ethernet frame has before its packet. */
const HEADER_BYTES = 14;

/** One direction; undefined without a limit. */
function limit(where: string, rate: number, burst: number, mtuBytes: number): Limits['ingress'] {
  if (rate === 0 && burst === 0) return undefined;
  if (burst === 0) refuse(`${where}Rate: if rate is set, burst must also be set`);
  if (rate === 0) refuse(`${where}Burst: if burst is set, rate must also be set`);
  const [rateBytes, burstBytes] = [rate, burst].map((bits) => Math.floor(bits / BYTE_BITS)) as [
    number,
    number,
  ];
  if (rateBytes === 0) refuse(`${where}Rate: it must be at least ${BYTE_BITS} bits a second`);
  if (burstBytes >= U32_MAX) refuse(`${where}Burst: burst cannot be more than 4GB`);
  const frameBytes = mtuBytes + HEADER_BYTES;
  if (burstBytes < frameBytes)
    refuse(
      `${where}Burst: ${burst} bits are less than one frame of the link, so that none of full length would pass: it must be at least ${frameBytes * BYTE_BITS}`,
    );
  return tokenBucket(rateBytes, burstBytes);
}

/** The limits of a pod; undefined without any. What the configuration says goes before the runtime's word, all of it. */
export function limitsOf(
  config: Config,
  choices: BandwidthChoices,
  mtuBytes: number,
): Limits | undefined {
  const isConfigured = KEYS.some((key) => (config[key] ?? 0) > 0);
  const {
    ingressRate = 0,
    ingressBurst = 0,
    egressRate = 0,
    egressBurst = 0,
  } = isConfigured ? config : choices;
  const at = isConfigured ? '' : `${AT}.`;
  const ingress = limit(`${at}ingress`, ingressRate, ingressBurst, mtuBytes);
  const egress = limit(`${at}egress`, egressRate, egressBurst, mtuBytes);
  if (!ingress && !egress) return undefined;
  return { ...(ingress ? { ingress } : {}), ...(egress ? { egress } : {}) };
}
