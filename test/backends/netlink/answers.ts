import { decodeAddress, encodeAddressDump } from '../../../backends/linux/address-message.ts';
import { decodeLink, encodeLinkDump } from '../../../backends/linux/link-message.ts';
import type { Message } from '../../../backends/linux/message.ts';
import { decodeNeighbour, encodeNeighbourDump } from '../../../backends/linux/neighbour-message.ts';
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
import { decodeRoute, encodeRouteDump } from '../../../backends/linux/route-message.ts';
import { TABLE } from './messages.ts';

/** A question that the kernel answers with objects, and their decoder. */
export interface Answer {
  readonly name: string;
  readonly protocol: 'route' | 'netfilter';
  readonly question: Uint8Array;
  readonly decode: (message: Message) => object | undefined;
}

/** Every decoder with a question that brings it answers. */
export const ANSWERS: readonly Answer[] = [
  { name: 'links', protocol: 'route', question: encodeLinkDump(), decode: decodeLink },
  { name: 'addresses', protocol: 'route', question: encodeAddressDump(0), decode: decodeAddress },
  { name: 'routes', protocol: 'route', question: encodeRouteDump(0), decode: decodeRoute },
  {
    name: 'neighbours',
    protocol: 'route',
    question: encodeNeighbourDump(0),
    decode: decodeNeighbour,
  },
  { name: 'tables', protocol: 'netfilter', question: encodeTableDump(), decode: decodeTable },
  { name: 'chains', protocol: 'netfilter', question: encodeChainDump('inet'), decode: decodeChain },
  { name: 'rules', protocol: 'netfilter', question: encodeRuleDump(TABLE), decode: decodeRule },
  { name: 'sets', protocol: 'netfilter', question: encodeSetDump(TABLE), decode: decodeSet },
  ...['s4', 's6', 'm4', 'm6'].map((set): Answer => ({
    name: `elements of ${set}`,
    protocol: 'netfilter',
    question: encodeElementDump(TABLE, set),
    decode: decodeElements,
  })),
];
