/**
 * Netlink attributes (include/uapi/linux/netlink.h, struct nlattr): a 16-bit length that counts its
 * own four bytes, a 16-bit type, the payload, padding to four bytes. Integers are in the byte order
 * of the machine, which here is always little-endian (x86-64, arm64), except in nf_tables: big-endian.
 */

/** NLA_F_NESTED: the payload is attributes again. */
const NLA_F_NESTED = 0x8000;
/** Without NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
const NLA_TYPE_MASK = 0x3fff;
const NLA_HDRLEN = 4;

/** A message under construction: the first `length` of `bytes`. It grows as needed. */
export interface Writer {
  bytes: Uint8Array;
  view: DataView;
  length: number;
}

/** Bytes that can be read as numbers without a copy. */
export interface Reader {
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder();

/** An empty message with room for `capacityBytes` before it has to grow. */
export function makeWriter(capacityBytes: number): Writer {
  const bytes = new Uint8Array(capacityBytes);
  return { bytes, view: new DataView(bytes.buffer), length: 0 };
}

/** A reader over bytes, wherever in their buffer they are. */
export function makeReader(bytes: Uint8Array): Reader {
  return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength) };
}

/** The message so far, as a view of the writer's memory. */
export function written(writer: Writer): Uint8Array {
  return writer.bytes.subarray(0, writer.length);
}

/** Appends `count` zero bytes, padded to a multiple of four, and answers where they begin. */
export function reserve(writer: Writer, count: number): number {
  const at = writer.length;
  const length = at + ((count + 3) & ~3);
  if (length > writer.bytes.length) {
    const grown = new Uint8Array(Math.max(length, writer.bytes.length * 2));
    grown.set(writer.bytes);
    writer.bytes = grown;
    writer.view = new DataView(grown.buffer);
  }
  writer.length = length;
  return at;
}

function putHeader(writer: Writer, type: number, payloadBytes: number): number {
  const at = reserve(writer, NLA_HDRLEN + payloadBytes);
  writer.view.setUint16(at, NLA_HDRLEN + payloadBytes, true);
  writer.view.setUint16(at + 2, type, true);
  return at + NLA_HDRLEN;
}

export function putU8(writer: Writer, type: number, value: number): void {
  const at = putHeader(writer, type, 1);
  writer.bytes[at] = value;
}

export function putU16(writer: Writer, type: number, value: number): void {
  const at = putHeader(writer, type, 2);
  writer.view.setUint16(at, value, true);
}

export function putU32(writer: Writer, type: number, value: number): void {
  const at = putHeader(writer, type, 4);
  writer.view.setUint32(at, value, true);
}

/** A 32-bit number, signed or not, in network byte order. */
export function putBe32(writer: Writer, type: number, value: number): void {
  const at = putHeader(writer, type, 4);
  writer.view.setUint32(at, value, false);
}

export function putBytes(writer: Writer, type: number, value: Uint8Array): void {
  const at = putHeader(writer, type, value.length);
  writer.bytes.set(value, at);
}

/** Text with the NUL byte at its end that NLA_NUL_STRING wants. */
export function putText(writer: Writer, type: number, value: string): void {
  const bytes = ENCODER.encode(value);
  const at = putHeader(writer, type, bytes.length + 1);
  writer.bytes.set(bytes, at);
}

/** Begins an attribute that holds attributes; `closeNest` takes the answer. */
export function openNest(writer: Writer, type: number): number {
  return putHeader(writer, type | NLA_F_NESTED, 0) - NLA_HDRLEN;
}

/** Ends a nest: all that was put since belongs to it. */
export function closeNest(writer: Writer, nest: number): void {
  writer.view.setUint16(nest, writer.length - nest, true);
}

/** Where an attribute's payload lies. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** The attributes of one level by type; of several with one type the last. */
export interface Attributes extends Reader {
  /** Where the payload of each type begins; its length stands four bytes before. */
  readonly starts: readonly (number | undefined)[];
}

/** Calls `visit` with the type and payload of each attribute between two offsets; stops at a damaged one. */
export function eachAttribute(
  { view }: Reader,
  start: number,
  end: number,
  visit: (type: number, start: number, end: number) => void,
): void {
  let at = start;
  while (at + NLA_HDRLEN <= end) {
    const length = view.getUint16(at, true);
    if (length < NLA_HDRLEN || at + length > end) return;
    visit(view.getUint16(at + 2, true) & NLA_TYPE_MASK, at + NLA_HDRLEN, at + length);
    at += (length + 3) & ~3;
  }
}

/** Reads the attributes between two offsets, those that `eachAttribute` visits; they stay valid as long as the bytes do. */
export function readAttributes({ bytes, view }: Reader, start: number, end: number): Attributes {
  const starts: number[] = [];
  // Its own loop: a link has fifty attributes, and this runs before anything is compiled to machine code.
  let at = start;
  while (at + NLA_HDRLEN <= end) {
    const length = view.getUint16(at, true);
    if (length < NLA_HDRLEN || at + length > end) break;
    starts[view.getUint16(at + 2, true) & NLA_TYPE_MASK] = at + NLA_HDRLEN;
    at += (length + 3) & ~3;
  }
  return { bytes, view, starts };
}

/** Where the payload of a type lies, undefined without one. */
export function findSpan({ view, starts }: Attributes, type: number): Span | undefined {
  const start = starts[type];
  return start === undefined
    ? undefined
    : { start, end: start - NLA_HDRLEN + view.getUint16(start - NLA_HDRLEN, true) };
}

function sizeAt({ view }: Attributes, start: number): number {
  return view.getUint16(start - NLA_HDRLEN, true) - NLA_HDRLEN;
}

export function findU8(attributes: Attributes, type: number): number | undefined {
  const start = attributes.starts[type];
  return start === undefined || sizeAt(attributes, start) < 1 ? undefined : attributes.bytes[start];
}

export function findU16(attributes: Attributes, type: number): number | undefined {
  const start = attributes.starts[type];
  return start === undefined || sizeAt(attributes, start) < 2
    ? undefined
    : attributes.view.getUint16(start, true);
}

export function findU32(attributes: Attributes, type: number): number | undefined {
  const start = attributes.starts[type];
  return start === undefined || sizeAt(attributes, start) < 4
    ? undefined
    : attributes.view.getUint32(start, true);
}

/** A 32-bit number in network byte order, read as signed: verdicts and priorities are. */
export function findBe32(attributes: Attributes, type: number): number | undefined {
  const start = attributes.starts[type];
  return start === undefined || sizeAt(attributes, start) < 4
    ? undefined
    : attributes.view.getInt32(start, false);
}

/** A copy of the payload. */
export function findBytes(attributes: Attributes, type: number): Uint8Array | undefined {
  const span = findSpan(attributes, type);
  return span && attributes.bytes.slice(span.start, span.end);
}

/** Text up to its NUL byte or its end. */
export function findText(attributes: Attributes, type: number): string | undefined {
  const span = findSpan(attributes, type);
  return span && textOf(attributes, span);
}

/** The text in a span, without the NUL byte at its end. */
export function textOf({ bytes }: Reader, { start, end }: Span): string {
  const nul = bytes.indexOf(0, start);
  return DECODER.decode(bytes.subarray(start, nul < 0 || nul > end ? end : nul));
}

/** The attributes inside an attribute. */
export function findNest(attributes: Attributes, type: number): Attributes | undefined {
  const span = findSpan(attributes, type);
  return span && readAttributes(attributes, span.start, span.end);
}
