/** A rule's statements as the kernel's expressions, in the form that nft itself gives them (nftables: src/netlink_linearize.c). */
import { ADDRESS_BITS, type Family, type Ip, familyOf, ipBytes } from '../../model/ip.ts';
import {
  FIELD_BYTES,
  FIELD_TYPES,
  type Field,
  type LookupField,
  type NftFamily,
  type Match,
  type Statement,
  type Verdict,
  fieldsOf,
} from '../../model/nftables.ts';
import { type Prefix, prefixIp, prefixLengthOf } from '../../model/prefix.ts';
import { type Writer, closeNest, openNest, putBe32, putBytes, putText } from './attribute.ts';
import {
  NFTA_LIST_ELEM,
  NFTA_EXPR_NAME,
  NFTA_EXPR_DATA,
  NFTA_DATA_VALUE,
  NFTA_META_DREG,
  NFTA_META_KEY,
  NFTA_CMP_SREG,
  NFTA_CMP_OP,
  NFTA_CMP_DATA,
  NFTA_PAYLOAD_DREG,
  NFTA_PAYLOAD_BASE,
  NFTA_PAYLOAD_OFFSET,
  NFTA_PAYLOAD_LEN,
  NFTA_BITWISE_SREG,
  NFTA_BITWISE_DREG,
  NFTA_BITWISE_LEN,
  NFTA_BITWISE_MASK,
  NFTA_BITWISE_OP,
  NFT_BITWISE_MASK_XOR,
  NFTA_BITWISE_XOR,
  NFTA_LOOKUP_SET,
  NFTA_LOOKUP_SREG,
  NFTA_LOOKUP_DREG,
  NFTA_LOOKUP_FLAGS,
  NFTA_IMMEDIATE_DREG,
  NFTA_IMMEDIATE_DATA,
  NFTA_FIB_DREG,
  NFTA_FIB_RESULT,
  NFTA_FIB_FLAGS,
  NFTA_FIB_F_DADDR,
  NFTA_NAT_TYPE,
  NFTA_NAT_FAMILY,
  NFTA_NAT_REG_ADDR_MIN,
  NFTA_NAT_REG_PROTO_MIN,
  NFTA_META_SREG,
  NFT_FIB_RESULT_ADDRTYPE,
  NFT_META_MARK,
  NFT_NAT_DNAT,
  RTN_LOCAL,
  NFT_META_NFPROTO,
  NFT_META_PROTOCOL,
  NFT_PAYLOAD_LL_HEADER,
  NFT_CMP_EQ,
  NFT_CMP_NEQ,
  NFT_LOOKUP_F_INV,
  NFT_REG_VERDICT,
  NFT_REG_1,
  REGISTER_BYTES,
  registerNumber,
  ETHER_TYPES,
  ETHER_TYPE_PLACE,
  META_FIELDS,
  PLACES,
  isMetaField,
  type Protocol,
} from './nftables-expression.ts';
import { encodeIfname } from './nftables-key.ts';
import { NFPROTO, putVerdict } from './nftables-number.ts';

function putExpression(writer: Writer, name: string, fill: () => void): void {
  const expression = openNest(writer, NFTA_LIST_ELEM);
  putText(writer, NFTA_EXPR_NAME, name);
  const data = openNest(writer, NFTA_EXPR_DATA);
  fill();
  closeNest(writer, data);
  closeNest(writer, expression);
}

/** Puts bytes as data under the attribute `type`. */
export function putData(writer: Writer, type: number, bytes: Uint8Array): void {
  const data = openNest(writer, type);
  putBytes(writer, NFTA_DATA_VALUE, bytes);
  closeNest(writer, data);
}

function putCompare(writer: Writer, negate: boolean, bytes: Uint8Array): void {
  putExpression(writer, 'cmp', () => {
    putBe32(writer, NFTA_CMP_SREG, NFT_REG_1);
    putBe32(writer, NFTA_CMP_OP, negate ? NFT_CMP_NEQ : NFT_CMP_EQ);
    putData(writer, NFTA_CMP_DATA, bytes);
  });
}

function putMeta(writer: Writer, key: number, register: number): void {
  putExpression(writer, 'meta', () => {
    putBe32(writer, NFTA_META_KEY, key);
    putBe32(writer, NFTA_META_DREG, register);
  });
}

function putPayload(
  writer: Writer,
  header: number,
  offset: number,
  lengthBytes: number,
  register: number,
): void {
  putExpression(writer, 'payload', () => {
    putBe32(writer, NFTA_PAYLOAD_DREG, register);
    putBe32(writer, NFTA_PAYLOAD_BASE, header);
    putBe32(writer, NFTA_PAYLOAD_OFFSET, offset);
    putBe32(writer, NFTA_PAYLOAD_LEN, lengthBytes);
  });
}

/**
 * A header field is only read when the packet is of its protocol, which in a table of family ip or ip6 it is. Of a
 * frame nft asks the packet for IP, but the Ethernet header for ARP (nftables: src/payload.c, payload_gen_dependency).
 */
function putProtocol(writer: Writer, family: NftFamily, protocol: Protocol): void {
  if (family === 'ip' || family === 'ip6') return;
  if (family === 'inet') {
    putMeta(writer, NFT_META_NFPROTO, NFT_REG_1);
    putCompare(writer, false, Uint8Array.of(protocol === 'ip' ? NFPROTO.ip : NFPROTO.ip6));
    return;
  }
  const { header, offset, bytes } = ETHER_TYPE_PLACE;
  if (protocol === 'arp') putPayload(writer, header, offset, bytes, NFT_REG_1);
  else putMeta(writer, NFT_META_PROTOCOL, NFT_REG_1);
  const type = ETHER_TYPES[protocol];
  putCompare(writer, false, Uint8Array.of(type >> 8, type & 255));
}

/** Loads so many bytes of a field. */
function putLoad(writer: Writer, field: Field, lengthBytes: number, register: number): void {
  if (isMetaField(field)) {
    putMeta(writer, META_FIELDS[field], register);
    return;
  }
  const { header, offset } = PLACES[field];
  putPayload(writer, header, offset, lengthBytes, register);
}

/** The bytes of a mask with this many leading ones. */
function maskBytes(prefixLength: number, lengthBytes: number): Uint8Array {
  const mask = new Uint8Array(lengthBytes);
  for (let i = 0; i < prefixLength; i += 1) mask[i >> 3] = (mask[i >> 3] ?? 0) | (0x80 >> (i & 7));
  return mask;
}

function putMatch(writer: Writer, match: Match): void {
  if (match.field === 'iifname' || match.field === 'oifname') {
    putMeta(writer, META_FIELDS[match.field], NFT_REG_1);
    putCompare(writer, match.negate, encodeIfname(match.value));
    return;
  }
  const { field, negate, value } = match;
  const fullBytes = ADDRESS_BITS[familyOf(value)] / 8;
  const isPrefix = value.includes('/');
  const bytes = ipBytes(isPrefix ? prefixIp(value as Prefix) : (value as Ip));
  const length = isPrefix ? prefixLengthOf(value as Prefix) : fullBytes * 8;
  if (length > 0 && length % 8 === 0) {
    putLoad(writer, field, length / 8, NFT_REG_1);
    putCompare(writer, negate, bytes.subarray(0, length / 8));
    return;
  }
  putLoad(writer, field, fullBytes, NFT_REG_1);
  putExpression(writer, 'bitwise', () => {
    putBe32(writer, NFTA_BITWISE_SREG, NFT_REG_1);
    putBe32(writer, NFTA_BITWISE_DREG, NFT_REG_1);
    putBe32(writer, NFTA_BITWISE_LEN, fullBytes);
    putData(writer, NFTA_BITWISE_MASK, maskBytes(length, fullBytes));
    putData(writer, NFTA_BITWISE_XOR, new Uint8Array(fullBytes));
  });
  putCompare(writer, negate, bytes);
}

function putLookup(
  writer: Writer,
  statement: Statement & { kind: 'lookup' | 'vmap' | 'dnat' },
): void {
  let index = 0;
  for (const field of fieldsOf(statement.field)) {
    const bytes = FIELD_BYTES[FIELD_TYPES[field]];
    putLoad(writer, field, bytes, registerNumber(index));
    index += Math.ceil(bytes / REGISTER_BYTES);
  }
  putExpression(writer, 'lookup', () => {
    putBe32(writer, NFTA_LOOKUP_SREG, NFT_REG_1);
    if (statement.kind !== 'lookup') {
      const target = statement.kind === 'vmap' ? NFT_REG_VERDICT : NFT_REG_1;
      putBe32(writer, NFTA_LOOKUP_DREG, target);
      putText(writer, NFTA_LOOKUP_SET, statement.map);
    } else {
      putText(writer, NFTA_LOOKUP_SET, statement.set);
      if (statement.negate) putBe32(writer, NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
    }
  });
}

/** Where the packet goes is what the lookup left: an address, and behind it a port. */
function putDnat(writer: Writer, family: Family): void {
  putExpression(writer, 'nat', () => {
    putBe32(writer, NFTA_NAT_TYPE, NFT_NAT_DNAT);
    putBe32(writer, NFTA_NAT_FAMILY, NFPROTO[family === 4 ? 'ip' : 'ip6']);
    putBe32(writer, NFTA_NAT_REG_ADDR_MIN, NFT_REG_1);
    const registers = ADDRESS_BITS[family] / 8 / REGISTER_BYTES;
    putBe32(writer, NFTA_NAT_REG_PROTO_MIN, registerNumber(registers));
  });
}

/** A number in the byte order of the machine. */
function hostBytes(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

function putLocal(writer: Writer): void {
  putExpression(writer, 'fib', () => {
    putBe32(writer, NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
    putBe32(writer, NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
    putBe32(writer, NFTA_FIB_DREG, NFT_REG_1);
  });
  putCompare(writer, false, hostBytes(RTN_LOCAL));
}

/** Loads the mark and leaves of it what the masks do. */
function putMarkBits(writer: Writer, mask: number, flips: number): void {
  putMeta(writer, NFT_META_MARK, NFT_REG_1);
  putExpression(writer, 'bitwise', () => {
    putBe32(writer, NFTA_BITWISE_SREG, NFT_REG_1);
    putBe32(writer, NFTA_BITWISE_DREG, NFT_REG_1);
    putBe32(writer, NFTA_BITWISE_OP, NFT_BITWISE_MASK_XOR);
    putBe32(writer, NFTA_BITWISE_LEN, REGISTER_BYTES);
    putData(writer, NFTA_BITWISE_MASK, hostBytes(mask));
    putData(writer, NFTA_BITWISE_XOR, hostBytes(flips));
  });
}

function putMark(writer: Writer, { bits, on }: Statement & { kind: 'mark' }): void {
  putMarkBits(writer, ~bits, on ? bits : 0);
  putExpression(writer, 'meta', () => {
    putBe32(writer, NFTA_META_KEY, NFT_META_MARK);
    putBe32(writer, NFTA_META_SREG, NFT_REG_1);
  });
}

function putImmediate(writer: Writer, verdict: Verdict): void {
  putExpression(writer, 'immediate', () => {
    putBe32(writer, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    putVerdict(writer, NFTA_IMMEDIATE_DATA, verdict);
  });
}

/** What a packet has to be for a field to be read; undefined when it may be anything. Throws for a field that the family's packets lack. */
function protocolOf(family: NftFamily, lookup: LookupField): Protocol | undefined {
  let protocol: Protocol | undefined;
  for (const field of fieldsOf(lookup)) {
    if (isMetaField(field)) continue;
    const place = PLACES[field];
    const isOfFrames = place.header === NFT_PAYLOAD_LL_HEADER || place.protocol === 'arp';
    if (isOfFrames && family !== 'bridge')
      throw new Error(`"${field}" can only be looked at in a table of family bridge`);
    protocol = place.protocol ?? protocol;
  }
  return protocol;
}

/** Puts a rule's statements as the expressions of a list. Throws for one that is not understood: it is never written. */
export function putStatements(
  writer: Writer,
  family: NftFamily,
  statements: readonly Statement[],
): void {
  let checked: Protocol | undefined;
  for (const statement of statements) {
    const needed = 'field' in statement ? protocolOf(family, statement.field) : undefined;
    if (needed !== undefined && needed !== checked) {
      putProtocol(writer, family, needed);
      checked = needed;
    }
    switch (statement.kind) {
      case 'match':
        putMatch(writer, statement);
        break;
      case 'lookup':
      case 'vmap':
        putLookup(writer, statement);
        break;
      case 'dnat':
        putLookup(writer, statement);
        putDnat(writer, statement.family);
        break;
      case 'local':
        putLocal(writer);
        break;
      case 'mark':
        putMark(writer, statement);
        break;
      case 'marked':
        putMarkBits(writer, statement.bits, 0);
        putCompare(writer, false, hostBytes(statement.bits));
        break;
      case 'masquerade':
        putExpression(writer, 'masq', () => undefined);
        break;
      case 'counter':
        putExpression(writer, 'counter', () => undefined);
        break;
      case 'verdict':
        putImmediate(writer, statement);
        break;
      case 'opaque':
        throw new Error(`an nft rule with "${statement.expression}" can be read but not written`);
    }
  }
}
