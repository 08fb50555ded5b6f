/** Netlink messages (include/uapi/linux/netlink.h, struct nlmsghdr; net/netlink/af_netlink.c). */
import { type Fault, errnoName } from '../../model/errno.ts';
import {
  type Reader,
  type Writer,
  findText,
  makeWriter,
  readAttributes,
  reserve,
  written,
} from './attribute.ts';

const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
/** Answers go to who asks, whether somebody listens or not. */
export const NLM_F_ECHO = 0x8;
export const NLM_F_DUMP_INTR = 0x10;
/** NLM_F_ROOT | NLM_F_MATCH: all objects instead of one. */
export const NLM_F_DUMP = 0x300;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;

export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
/** The length of struct nlmsghdr. */
export const NLMSG_HDRLEN = 16;

const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NLMSGERR_ATTR_MSG = 1;

/** One message among those that were received; valid until the next receive into the same bytes. */
export interface Message extends Reader {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** Where the payload begins and ends. */
  readonly start: number;
  readonly end: number;
}

/** Appends a message's header and a fixed part of zeros; answers where the header begins. */
export function openMessage(
  writer: Writer,
  type: number,
  flags: number,
  fixedBytes: number,
): number {
  const at = reserve(writer, NLMSG_HDRLEN + fixedBytes);
  writer.view.setUint16(at + 4, type, true);
  writer.view.setUint16(at + 6, flags | NLM_F_REQUEST, true);
  return at;
}

/** Writes the length of the message that began at `at`: everything up to here is part of it. */
export function closeMessage(writer: Writer, at: number): void {
  writer.view.setUint32(at, writer.length - at, true);
}

/**
 * One message: its header, a fixed part of `fixedBytes` that `fill` completes, and the attributes
 * that `fill` puts. The sequence number is the socket's to give.
 */
export function encodeMessage(
  type: number,
  flags: number,
  fixedBytes: number,
  fill: (writer: Writer, fixed: number) => void,
): Uint8Array {
  const writer = makeWriter(512);
  const at = openMessage(writer, type, flags, fixedBytes);
  fill(writer, at + NLMSG_HDRLEN);
  closeMessage(writer, at);
  return written(writer);
}

/** Calls `visit` for each message in the first `length` bytes. */
export function eachMessage(
  { bytes, view }: Reader,
  length: number,
  visit: (message: Message) => void,
): void {
  let at = 0;
  while (at + NLMSG_HDRLEN <= length) {
    const size = view.getUint32(at, true);
    if (size < NLMSG_HDRLEN || at + size > length) return;
    visit({
      bytes,
      view,
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      sequence: view.getUint32(at + 8, true),
      start: at + NLMSG_HDRLEN,
      end: at + size,
    });
    at += (size + 3) & ~3;
  }
}

/** Numbers the messages in the bytes from `base` on and answers how many there are. */
export function number({ bytes, view }: Reader, base: number): number {
  let count = 0;
  for (let at = 0; at + NLMSG_HDRLEN <= bytes.length; at += (view.getUint32(at, true) + 3) & ~3) {
    view.setUint32(at + 8, base + count, true);
    count += 1;
  }
  return count;
}

/** The extended ACK's text, without the full stop that some have; '' when there is none. */
function extendedText(message: Message, attributesAt: number): string {
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return '';
  const text =
    findText(readAttributes(message, attributesAt, message.end), NLMSGERR_ATTR_MSG) ?? '';
  return text.endsWith('.') ? text.slice(0, -1) : text;
}

/**
 * What an NLMSG_ERROR or NLMSG_DONE message says: undefined for success, else the errno and the text
 * of the extended ACK (struct nlmsgerr: the negative errno, the header of the request, all of the
 * request unless NETLINK_CAP_ACK capped it, attributes).
 */
export function decodeFault(message: Message): Fault | undefined {
  if (message.end - message.start < 4) return undefined;
  const error = message.view.getInt32(message.start, true);
  if (error >= 0) return undefined;
  if (message.type === NLMSG_DONE)
    return { errno: errnoName(-error), text: extendedText(message, message.start + 4) };
  const request = message.start + 4;
  const capped = (message.flags & NLM_F_CAPPED) !== 0;
  const size = capped ? NLMSG_HDRLEN : message.view.getUint32(request, true);
  return { errno: errnoName(-error), text: extendedText(message, request + ((size + 3) & ~3)) };
}
