/**
 * Who may reach a pod through the host, as the reference's plugin `firewall` has it: between bridges whose pods have a policy
 * nothing is forwarded, and where pods are isolated, nothing between pods of one bridge either. The host and what is outside
 * may come in. Two sets of links, and rules that never change; a drop of ours ends the packet, and no accept of ours ends what
 * others say.
 */
import type { DesiredSet } from '../model/desired.ts';
import type { Ifname } from '../model/ifname.ts';
import type { Chain, SetElement, SetKey, SetKeyType, Table } from '../model/nftables.ts';
import type { Attachment } from './attachment.ts';
import { type TablePart, rule } from './table.ts';

/** `same-bridge`: pods of one bridge reach each other. `isolated`: they do not. */
export type IngressPolicy = 'same-bridge' | 'isolated';

/** The bridges whose pods have a policy. */
const POLICED = 'policed';

/** Those whose pods reach each other, each beside itself: bridged frames come by here too where br_netfilter is on. */
const SAME_BRIDGE = 'same-bridge';

const KEY_TYPES: Readonly<Record<string, SetKeyType>> = {
  [POLICED]: 'ifname',
  [SAME_BRIDGE]: 'ifname . ifname',
};

/** Before the map of pods. */
const PRIORITY = -2;

const CHAIN: Chain = {
  name: 'ingress-policy',
  hook: { type: 'filter', hook: 'forward', priority: PRIORITY, policy: 'accept' },
  rules: [
    rule(
      { kind: 'lookup', field: 'iifname . oifname', negate: false, set: SAME_BRIDGE },
      { kind: 'verdict', verdict: 'return' },
    ),
    rule(
      { kind: 'lookup', field: 'iifname', negate: false, set: POLICED },
      { kind: 'lookup', field: 'oifname', negate: false, set: POLICED },
      { kind: 'verdict', verdict: 'drop' },
    ),
  ],
};

/** The keys of an attachment's bridge in each set. */
export function policyKeys({
  bridge,
  ingressPolicy,
}: Attachment): Readonly<Record<string, readonly SetKey[]>> {
  return {
    [POLICED]: ingressPolicy === undefined ? [] : [bridge],
    [SAME_BRIDGE]: ingressPolicy === 'same-bridge' ? [`${bridge} . ${bridge}`] : [],
  };
}

function setsWith(
  keys: Readonly<Record<string, readonly SetKey[]>>,
  element: (key: SetKey) => SetElement | 'absent',
): Record<string, DesiredSet> {
  return Object.fromEntries(
    Object.entries(KEY_TYPES).map(([name, keyType]) => [
      name,
      {
        keyType,
        holds: 'nothing' as const,
        elements: Object.fromEntries((keys[name] ?? []).map((key) => [key, element(key)])),
        others: 'keep' as const,
      },
    ]),
  );
}

/** What keeps the attachment's policy. Its elements are the bridge's: of no attachment alone. */
export function policyPart(attachment: Attachment): TablePart {
  return {
    chains: { [CHAIN.name]: CHAIN },
    sets: setsWith(policyKeys(attachment), (key) => ({ key, verdict: null, comment: '' })),
  };
}

/** What others still need of what keeps policies. */
export interface PolicyUse {
  /** Has another attachment a policy, on whatever bridge? */
  readonly any: boolean;
  /** Has another one on this bridge? */
  readonly bridge: boolean;
  /** Do pods of this bridge reach each other because of another? */
  readonly sameBridge: boolean;
}

/** The same without what only the attachment needs. */
export function withoutPolicy(attachment: Attachment, use: PolicyUse): TablePart {
  if (!use.any)
    return {
      chains: { [CHAIN.name]: 'absent' },
      sets: { [POLICED]: 'absent', [SAME_BRIDGE]: 'absent' },
    };
  const keys = policyKeys(attachment);
  const spare = {
    ...(use.bridge ? {} : { [POLICED]: keys[POLICED] ?? [] }),
    ...(use.sameBridge ? {} : { [SAME_BRIDGE]: keys[SAME_BRIDGE] ?? [] }),
  };
  return { chains: {}, sets: setsWith(spare, () => 'absent') };
}

/** The policy of a bridge's pods, as far as the table tells it. */
export function policyIn(
  { sets }: Pick<Table, 'sets'>,
  bridge: Ifname,
): Pick<Attachment, 'ingressPolicy'> {
  if (!Object.hasOwn(sets[POLICED]?.elements ?? {}, bridge)) return {};
  const isSame = Object.hasOwn(sets[SAME_BRIDGE]?.elements ?? {}, `${bridge} . ${bridge}`);
  return { ingressPolicy: isSame ? 'same-bridge' : 'isolated' };
}
