import { decodeAddress, encodeAddressDump } from '../../../backends/linux/address-message.ts';
import {
  decodeFlowCount,
  decodeFlowOf,
  encodeFlowCountGet,
  encodeFlowDump,
} from '../../../backends/linux/conntrack-message.ts';
import { decodeFdb, decodeRemote, encodeFdbDump } from '../../../backends/linux/fdb-message.ts';
import {
  decodeLink,
  decodePortState,
  encodeLinkDump,
} from '../../../backends/linux/link-message.ts';
import { type Message, NLM_F_ACK } from '../../../backends/linux/message.ts';
import { decodeNeighbour, encodeNeighbourDump } from '../../../backends/linux/neighbour-message.ts';
import { decodeNetconf, encodeNetconfGet } from '../../../backends/linux/netconf-message.ts';
import {
  decodeChain,
  decodeElements,
  decodeRule,
  decodeSet,
  decodeTable,
  encodeChainDump,
  encodeElementDump,
  encodeRuleDump,
  encodeSetDump,
  encodeTableDump,
} from '../../../backends/linux/nftables-message.ts';
import {
  decodePolicyRule,
  encodePolicyRuleDump,
} from '../../../backends/linux/policy-rule-message.ts';
import { decodeRoute, encodeRouteDump } from '../../../backends/linux/route-message.ts';
import {
  decodeQdisc,
  decodeRedirect,
  encodeFilterDump,
  encodeQdiscDump,
} from '../../../backends/linux/traffic-control-message.ts';
import { BATCH, BRIDGE_TABLE, FLOW_IPS, INDEX, TABLE } from './messages.ts';

/** A question that the kernel answers with objects, and their decoder. */
export interface Answer {
  readonly name: string;
  readonly protocol: 'route' | 'netfilter';
  readonly question: Uint8Array;
  readonly decode: (message: Message) => object | undefined;
}

/** The same question with an end that can be waited for, as a dump has one. */
function withAck(question: Uint8Array): Uint8Array {
  const bytes = question.slice();
  bytes[6] = (bytes[6] ?? 0) | NLM_F_ACK;
  return bytes;
}

/** Flows are told by bytes, which JSON does not have. */
function decodeFlow(message: Message, family: 4 | 6): { readonly key: string } | undefined {
  const flow = decodeFlowOf(message, FLOW_IPS[family]);
  return flow && { key: Buffer.from(flow.key).toString('hex') };
}

/** Every decoder with a question that brings it answers. */
export const ANSWERS: readonly Answer[] = [
  { name: 'links', protocol: 'route', question: encodeLinkDump(), decode: decodeLink },
  {
    name: 'forwarding databases',
    protocol: 'route',
    question: encodeFdbDump(),
    decode: (message) => decodeFdb(message) ?? decodeRemote(message),
  },
  {
    name: 'policy rules',
    protocol: 'route',
    question: encodePolicyRuleDump(),
    decode: decodePolicyRule,
  },
  ...([4, 6] as const).map((family): Answer => ({
    name: `settings of all links in IPv${family}`,
    protocol: 'route',
    question: withAck(encodeNetconfGet(family)),
    decode: decodeNetconf,
  })),
  { name: 'port states', protocol: 'route', question: encodeLinkDump(), decode: decodePortState },
  { name: 'addresses', protocol: 'route', question: encodeAddressDump(0), decode: decodeAddress },
  { name: 'routes', protocol: 'route', question: encodeRouteDump(0), decode: decodeRoute },
  {
    name: 'neighbours',
    protocol: 'route',
    question: encodeNeighbourDump(0),
    decode: decodeNeighbour,
  },
  { name: 'qdiscs', protocol: 'route', question: encodeQdiscDump(), decode: decodeQdisc },
  {
    name: 'redirects',
    protocol: 'route',
    question: encodeFilterDump(INDEX.port),
    decode: decodeRedirect,
  },
  { name: 'tables', protocol: 'netfilter', question: encodeTableDump(), decode: decodeTable },
  { name: 'chains', protocol: 'netfilter', question: encodeChainDump('inet'), decode: decodeChain },
  {
    name: 'bridge chains',
    protocol: 'netfilter',
    question: encodeChainDump('bridge'),
    decode: decodeChain,
  },
  ...[TABLE, BRIDGE_TABLE].flatMap((table): Answer[] => [
    {
      name: `${table.family} rules`,
      protocol: 'netfilter',
      question: encodeRuleDump(table),
      decode: decodeRule,
    },
    {
      name: `${table.family} sets`,
      protocol: 'netfilter',
      question: encodeSetDump(table),
      decode: decodeSet,
    },
  ]),
  ...BATCH.filter((command) => command.do === 'add set').map(
    ({ family, table, set, keyType, holds }) => ({
      name: `elements of ${family} ${set}`,
      protocol: 'netfilter' as const,
      question: encodeElementDump({ family, table }, set),
      decode: (message: Message) => decodeElements(message, { keyType, holds }),
    }),
  ),
  {
    name: 'flow count',
    protocol: 'netfilter',
    question: withAck(encodeFlowCountGet()),
    decode: decodeFlowCount,
  },
  ...([4, 6] as const).map((family): Answer => ({
    name: `flows of IPv${family}`,
    protocol: 'netfilter',
    question: encodeFlowDump(FLOW_IPS[family]),
    decode: (message) => decodeFlow(message, family),
  })),
];
