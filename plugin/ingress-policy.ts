/**
 * Who may reach a pod through the host, as the reference's plugin `firewall` has it: between bridges whose pods have a policy,
 * and between their VLANs, nothing is forwarded, and where pods are isolated, nothing between pods of one bridge either. The host and what is outside
 * may come in. Two sets of links, and rules that never change; a drop of ours ends the packet, and no accept of ours ends what
 * others say.
 */
import type { DesiredSet } from '../model/desired.ts';
import type { Ifname } from '../model/ifname.ts';
import type { Chain, SetElement, SetKey, SetKeyType, Table } from '../model/nftables.ts';
import type { Attachment } from './attachment.ts';
import { type TablePart, rule } from './table.ts';
import { gatewayRef } from './vlan.ts';

/** `same-bridge`: pods of one bridge reach each other. `isolated`: they do not. */
export type IngressPolicy = 'same-bridge' | 'isolated';

/** The links of the host that hear pods with a policy: their bridge, or the link of their VLAN's gateways. */
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

/** The link that the policy of an attachment's pods is about. */
export function policedLink(attachment: Pick<Attachment, 'bridge' | 'vlans'>): Ifname {
  return gatewayRef(attachment).ifname;
}

/** The keys of an attachment's link in each set. */
export function policyKeys(attachment: Attachment): Readonly<Record<string, readonly SetKey[]>> {
  const { ingressPolicy } = attachment;
  const link = policedLink(attachment);
  return {
    [POLICED]: ingressPolicy === undefined ? [] : [link],
    [SAME_BRIDGE]: ingressPolicy === 'same-bridge' ? [`${link} . ${link}`] : [],
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

/** What keeps the attachment's policy. Its elements are the link's: of no attachment alone. */
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
  /** Has another one on this link? */
  readonly link: boolean;
  /** Do pods of this link reach each other because of another? */
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
    ...(use.link ? {} : { [POLICED]: keys[POLICED] ?? [] }),
    ...(use.sameBridge ? {} : { [SAME_BRIDGE]: keys[SAME_BRIDGE] ?? [] }),
  };
  return { chains: {}, sets: setsWith(spare, () => 'absent') };
}

/** The policy of a link's pods, as far as the table tells it. */
export function policyIn(
  { sets }: Pick<Table, 'sets'>,
  link: Ifname,
): Pick<Attachment, 'ingressPolicy'> {
  if (!Object.hasOwn(sets[POLICED]?.elements ?? {}, link)) return {};
  const isSame = Object.hasOwn(sets[SAME_BRIDGE]?.elements ?? {}, `${link} . ${link}`);
  return { ingressPolicy: isSame ? 'same-bridge' : 'isolated' };
}
