/** Sockets inside netns that never block: those of whoever asks, and of whoever answers (socket(7), ip(7), ipv6(7)). */
import { dlopen, ptr } from 'bun:ffi';
import { closeSync } from 'node:fs';
import { insideNetns, openNetns } from '../../backends/linux/netns.ts';
import type { NetnsName } from '../../model/host.ts';
import { type Family, type Ip, familyOf, ipBytes, ipFromBytes } from '../../model/ip.ts';

const { symbols: libc } = dlopen('libc.so.6', {
  socket: { args: ['i32', 'i32', 'i32'], returns: 'i32' },
  setsockopt: { args: ['i32', 'i32', 'i32', 'ptr', 'u32'], returns: 'i32' },
  getsockopt: { args: ['i32', 'i32', 'i32', 'ptr', 'ptr'], returns: 'i32' },
  bind: { args: ['i32', 'ptr', 'u32'], returns: 'i32' },
  connect: { args: ['i32', 'ptr', 'u32'], returns: 'i32' },
  listen: { args: ['i32', 'i32'], returns: 'i32' },
  accept: { args: ['i32', 'ptr', 'ptr'], returns: 'i32' },
  getpeername: { args: ['i32', 'ptr', 'ptr'], returns: 'i32' },
  send: { args: ['i32', 'ptr', 'usize', 'i32'], returns: 'i32' },
  recv: { args: ['i32', 'ptr', 'usize', 'i32'], returns: 'i32' },
  sendmsg: { args: ['i32', 'ptr', 'i32'], returns: 'i32' },
  recvmsg: { args: ['i32', 'ptr', 'i32'], returns: 'i32' },
  poll: { args: ['ptr', 'u64', 'i32'], returns: 'i32' },
});

export type Protocol = 'icmp' | 'udp' | 'tcp';

/** SOCK_STREAM and SOCK_DGRAM with SOCK_NONBLOCK and SOCK_CLOEXEC. */
const FLAGS = 0x80800;
const TYPES = { icmp: 2 | FLAGS, udp: 2 | FLAGS, tcp: 1 | FLAGS } as const;

const DONT_WAIT = 0x40;
const ERROR_QUEUE = 0x2000 | DONT_WAIT;

/** AF_*, the level of its options and those, IPPROTO_ICMP or IPPROTO_ICMPV6, and the kinds of what comes beside a datagram. */
const FAMILIES = {
  4: {
    number: 2,
    level: 0,
    recverr: 11,
    ttl: 2,
    mtuDiscover: 10,
    icmp: 1,
    askPacketInfo: 8,
    packetInfo: 8,
    askTtl: 12,
    ttlInfo: 2,
  },
  6: {
    number: 10,
    level: 41,
    recverr: 25,
    ttl: 16,
    mtuDiscover: 23,
    icmp: 58,
    askPacketInfo: 49,
    packetInfo: 50,
    askTtl: 51,
    ttlInfo: 52,
  },
} as const;

/** IPV6_V6ONLY, and IP_PMTUDISC_*: always DF, whatever was learned about the path, or never. */
const V6ONLY = 26;
const MTU_DISCOVER = { probe: 3, never: 0 } as const;

const SOL_SOCKET = 1;
const SO_ERROR = 4;
const ECONNREFUSED = 111;

/** SO_EE_ORIGIN_LOCAL: the own kernel has refused to send. */
const ORIGIN_LOCAL = 1;

function socketAddress(ip: Ip, port: number): Uint8Array {
  const family = familyOf(ip);
  const bytes = new Uint8Array(family === 4 ? 16 : 28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, FAMILIES[family].number, true);
  view.setUint16(2, port);
  bytes.set(ipBytes(ip), family === 4 ? 4 : 8);
  return bytes;
}

function addressIn(bytes: Uint8Array, family: Family): Ip {
  return ipFromBytes(family === 4 ? bytes.slice(4, 8) : bytes.slice(8, 24));
}

/** A struct msghdr, and what it points to, which has to live as long. */
interface Message {
  readonly header: Uint8Array;
  readonly name: Uint8Array;
  readonly data: Uint8Array;
  readonly control: Uint8Array;
  readonly vector: BigUint64Array;
}

function message(name: Uint8Array, data: Uint8Array, control: Uint8Array): Message {
  const vector = BigUint64Array.of(data.length > 0 ? BigInt(ptr(data)) : 0n, BigInt(data.length));
  const header = new Uint8Array(56);
  const view = new DataView(header.buffer);
  view.setBigUint64(0, name.length > 0 ? BigInt(ptr(name)) : 0n, true);
  view.setUint32(8, name.length, true);
  view.setBigUint64(16, BigInt(ptr(vector)), true);
  view.setBigUint64(24, 1n, true);
  view.setBigUint64(32, BigInt(ptr(control)), true);
  view.setBigUint64(40, BigInt(control.length), true);
  return { header, name, data, control, vector };
}

const CONTROL_HEADER_BYTES = 16;

/** What lies in a control buffer, by its kind (cmsg(3)). */
function controlMessages({ header, control }: Message): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>();
  const end = Number(new DataView(header.buffer).getBigUint64(40, true));
  const view = new DataView(control.buffer);
  for (let at = 0; at + CONTROL_HEADER_BYTES <= end;) {
    const bytes = Number(view.getBigUint64(at, true));
    found.set(view.getInt32(at + 12, true), control.slice(at + CONTROL_HEADER_BYTES, at + bytes));
    at += Math.max(CONTROL_HEADER_BYTES, Math.ceil(bytes / 8) * 8);
  }
  return found;
}

/** A struct cmsghdr and its data. */
function controlMessage(level: number, type: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(CONTROL_HEADER_BYTES + Math.ceil(data.length / 8) * 8);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(CONTROL_HEADER_BYTES + data.length), true);
  view.setInt32(8, level, true);
  view.setInt32(12, type, true);
  bytes.set(data, CONTROL_HEADER_BYTES);
  return bytes;
}

/** Longer than any datagram. */
const PATTERN = Uint8Array.from({ length: 0x1_0000 }, (_, at) => at);

/** 00 01 02 ..., as the simulator fills its packets: rules see it in fragments. */
export function pattern(length: number): Uint8Array {
  return PATTERN.slice(0, length);
}

/** What comes is read by this before anything else does. */
const RECEIVED = new Uint8Array(16_384);

/** An ICMP error of which a socket is told. */
export interface Told {
  readonly from: Ip;
  readonly type: number;
  readonly code: number;
  /** The next hop's, 0 where it is not about that. */
  readonly mtuBytes: number;
}

/** A datagram, and what came beside it. */
export interface Received {
  readonly bytes: number;
  readonly from: Ip;
  readonly fromPort: number;
  /** Whom it was for. */
  readonly to: Ip;
  readonly ttl: number;
}

/** A socket in a netns. */
export class Socket {
  readonly fd: number;
  readonly family: Family;

  constructor(fd: number, family: Family) {
    this.fd = fd;
    this.family = family;
  }

  #set(level: number, option: number, value: number): void {
    const failed = libc.setsockopt(this.fd, level, option, ptr(Int32Array.of(value)), 4) < 0;
    if (failed) throw new Error(`a socket refuses option ${option}`);
  }

  /** Has it hear of ICMP errors, and send with or without DF. */
  forAsking(dontFragment: boolean, ttl: number | undefined): void {
    const { level, recverr, mtuDiscover, ttl: ttlOption } = FAMILIES[this.family];
    this.#set(level, recverr, 1);
    this.#set(level, mtuDiscover, dontFragment ? MTU_DISCOVER.probe : MTU_DISCOVER.never);
    if (ttl !== undefined) this.#set(level, ttlOption, ttl);
  }

  /** Has it answer on a port, of all addresses, without DF. */
  forAnswering(protocol: 'udp' | 'tcp', port: number): void {
    const { level, askPacketInfo, askTtl, mtuDiscover } = FAMILIES[this.family];
    this.#set(level, mtuDiscover, MTU_DISCOVER.never);
    if (this.family === 6) this.#set(level, V6ONLY, 1);
    if (protocol === 'udp')
      for (const option of [askPacketInfo, askTtl]) this.#set(level, option, 1);
    const any = ipFromBytes(new Uint8Array(this.family === 4 ? 4 : 16));
    const address = socketAddress(any, port);
    const failed =
      libc.bind(this.fd, ptr(address), address.length) < 0 ||
      (protocol === 'tcp' && libc.listen(this.fd, 64) < 0);
    if (failed) throw new Error(`port ${port} is taken`);
  }

  /** Fails, without a word, where there is no route. */
  connect(ip: Ip, port: number): void {
    const address = socketAddress(ip, port);
    libc.connect(this.fd, ptr(address), address.length);
  }

  /** Was it told that the connection is refused? Asks once: the error is taken away with that. */
  isRefused(): boolean {
    const error = new Int32Array(1);
    const length = Uint32Array.of(4);
    libc.getsockopt(this.fd, SOL_SOCKET, SO_ERROR, ptr(error), ptr(length));
    return error[0] === ECONNREFUSED;
  }

  /** Has whom it connects to agreed? */
  isConnected(): boolean {
    const name = new Uint8Array(28);
    return libc.getpeername(this.fd, ptr(name), ptr(Uint32Array.of(name.length))) === 0;
  }

  send(bytes: Uint8Array): void {
    // An empty buffer has no address.
    const data = bytes.length > 0 ? bytes : new Uint8Array(1);
    libc.send(this.fd, ptr(data), bytes.length, 0);
  }

  /** What has come, until the next is received; undefined: nothing yet, or an error, or no more. */
  receive(): Uint8Array | undefined {
    const bytes = libc.recv(this.fd, ptr(RECEIVED), RECEIVED.length, DONT_WAIT);
    return bytes < 0 ? undefined : RECEIVED.subarray(0, bytes);
  }

  /** What lies in its error queue, but what is of the own kernel: a sock_extended_err, and a sockaddr behind it (include/uapi/linux/errqueue.h). */
  told(): Told | undefined {
    const { recverr } = FAMILIES[this.family];
    const told = message(new Uint8Array(0), new Uint8Array(0), new Uint8Array(256));
    if (libc.recvmsg(this.fd, ptr(told.header), ERROR_QUEUE) < 0) return undefined;
    const error = controlMessages(told).get(recverr);
    if (error === undefined || error[4] === ORIGIN_LOCAL) return undefined;
    const view = new DataView(error.buffer);
    return {
      from: addressIn(error.slice(16), this.family),
      type: view.getUint8(5),
      code: view.getUint8(6),
      mtuBytes: view.getUint32(8, true),
    };
  }

  /** The next datagram that is for somebody who answers. */
  receiveFrom(): Received | undefined {
    const { packetInfo, ttlInfo } = FAMILIES[this.family];
    const name = new Uint8Array(28);
    const got = message(name, RECEIVED, new Uint8Array(256));
    const bytes = libc.recvmsg(this.fd, ptr(got.header), DONT_WAIT);
    if (bytes < 0) return undefined;
    const beside = controlMessages(got);
    const info = beside.get(packetInfo) ?? new Uint8Array(20);
    const ttl = beside.get(ttlInfo) ?? new Uint8Array(4);
    return {
      bytes,
      from: addressIn(name, this.family),
      fromPort: new DataView(name.buffer).getUint16(2),
      to: ipFromBytes(this.family === 4 ? info.slice(8, 12) : info.slice(0, 16)),
      ttl: new DataView(ttl.buffer).getInt32(0, true),
    };
  }

  /** Answers a datagram by the address that it was for, in as many bytes if the text needs no more. */
  answer({ from, fromPort, to, bytes }: Received, text: string): void {
    const { level, packetInfo } = FAMILIES[this.family];
    const info = new Uint8Array(this.family === 4 ? 12 : 20);
    info.set(ipBytes(to), this.family === 4 ? 4 : 0);
    const control = controlMessage(level, packetInfo, info);
    const words = new TextEncoder().encode(`${text} `);
    const data = pattern(Math.max(words.length, bytes));
    data.set(words);
    const answer = message(socketAddress(from, fromPort), data, control);
    libc.sendmsg(this.fd, ptr(answer.header), DONT_WAIT);
  }

  /** Who has connected: tells each as whom it was seen, and lets it go. */
  greet(): void {
    for (;;) {
      const name = new Uint8Array(28);
      const fd = libc.accept(this.fd, ptr(name), ptr(Uint32Array.of(name.length)));
      if (fd < 0) return;
      const peer = new Socket(fd, this.family);
      peer.send(new TextEncoder().encode(addressIn(name, this.family)));
      peer.close();
    }
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** Opens sockets in a netns. */
export function inNetns<T>(netns: NetnsName, act: () => T): T {
  const fd = openNetns(netns);
  if (typeof fd !== 'number') throw new Error(`${netns}: ${fd.errno}`);
  try {
    const done = insideNetns(fd, () => ({ value: act() }));
    if (!('value' in done)) throw new Error(`${netns}: ${done.errno}`);
    return done.value;
  } finally {
    closeSync(fd);
  }
}

/** A socket of the netns that the thread is in. */
export function openSocket(protocol: Protocol, family: Family): Socket {
  const { number, icmp } = FAMILIES[family];
  const fd = libc.socket(number, TYPES[protocol], protocol === 'icmp' ? icmp : 0);
  if (fd < 0) throw new Error(`no socket for ${protocol}`);
  return new Socket(fd, family);
}

/** struct pollfd: the file descriptor in 32 bits, what is waited for and what has come in 16 each. */
const POLL_BYTES = 8;
const POLL_IN = 1;
/** Of a file descriptor that is passed over. */
const NOBODY = -1;

/** Sockets that are looked at again and again (poll(2)). */
export class Watch {
  readonly #sockets: readonly Socket[];
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  constructor(sockets: readonly Socket[]) {
    this.#sockets = sockets;
    this.#bytes = new Uint8Array(Math.max(1, sockets.length) * POLL_BYTES);
    this.#view = new DataView(this.#bytes.buffer);
    for (const [at, { fd }] of sockets.entries()) {
      this.#view.setInt32(at * POLL_BYTES, fd, true);
      this.#view.setInt16(at * POLL_BYTES + 4, POLL_IN, true);
    }
  }

  /** For which of them something has come, be it an error; by their numbers in the list. Waits for nothing. */
  ready(): readonly number[] {
    const ready: number[] = [];
    let left = libc.poll(ptr(this.#bytes), this.#sockets.length, 0);
    for (let at = 0; left > 0; at += 1) {
      if (this.#view.getInt16(at * POLL_BYTES + 6, true) === 0) continue;
      ready.push(at);
      left -= 1;
    }
    return ready;
  }

  /** Looks at one no more. */
  leave(at: number): void {
    this.#view.setInt32(at * POLL_BYTES, NOBODY, true);
  }
}
