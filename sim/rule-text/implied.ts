/**
 * What nft does not say again of a rule since other words imply it: `tcp dport 80` asks for TCP (nftables: src/payload.c,
 * payload_dependency_kill, and src/netlink_delinearize.c, meta_may_dependency_kill). A condition is implied only by one behind it, and
 * only if nothing is done between the two.
 */
import type { NftFamily } from '../../model/nftables.ts';
import {
  type Header,
  type LoadedField,
  type Protocols,
  protocolTold,
  protocolsOf,
} from './field.ts';
import { isOfOne } from './translation.ts';

/** A part of the text of a rule; what is implied has none. */
export interface Part {
  text: string;
}

/** The protocol of the network that one of its transports implies. */
const NETWORK_OF: Readonly<Record<string, string>> = { icmp: 'ip', icmpv6: 'ip6' };

/** What a rule has asked for of the protocols of a packet so far. */
export class Implied {
  readonly #family: NftFamily;
  #protocols: Protocols;
  /** Where it was asked; undefined where that is said anyway. */
  #asked: { network?: Part; transport?: Part } = {};
  /** What was asked of the network. */
  #network: string | undefined;
  /** Was the transport asked of a field of the network's header, which in tables of both families says more than that? */
  #isHeader = false;

  constructor(family: NftFamily) {
    this.#family = family;
    this.#protocols = protocolsOf(family);
  }

  get protocols(): Protocols {
    return this.#protocols;
  }

  /** Something was done: what was asked before it is said. */
  keep(): void {
    this.#asked = {};
  }

  /** What was asked of a header's protocol is not said. */
  drop(header: Header): void {
    const part = this.#asked[header];
    if (part) part.text = '';
    delete this.#asked[header];
  }

  /** A field is looked at, which is in packets of one protocol alone. */
  use({ header }: Pick<LoadedField, 'header'>): void {
    if (header === undefined) return;
    const isMore = header === 'transport' && this.#isHeader && !isOfOne(this.#family);
    if (!isMore) this.drop(header);
  }

  /** The network's protocol by the name of one of its fields. */
  useNetwork(network: string): void {
    this.drop('network');
    this.#protocols = { ...this.#protocols, network };
  }

  /** A part asks whether a field has a value, which tells the protocol of that header. */
  learn(tells: Header, { header }: Pick<LoadedField, 'header'>, value: string, part: Part): void {
    const protocol = protocolTold(value);
    if (tells === 'network') this.#network = protocol;
    else {
      if (header === undefined && this.#impliesNetwork(protocol)) this.drop('network');
      this.#isHeader = header === 'network';
    }
    this.#protocols = { ...this.#protocols, [tells]: protocol };
    this.#asked[tells] = part;
  }

  #impliesNetwork(transport: string): boolean {
    return this.#network === (isOfOne(this.#family) ? this.#family : NETWORK_OF[transport]);
  }
}
