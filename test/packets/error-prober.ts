/**
 * Runs in a netns: sends a UDP datagram for each of a JSON list of questions, and prints the list of the ICMP errors that
 * their sockets were told (IP_RECVERR, include/uapi/linux/errqueue.h). Datagrams carry DF, and ignore what was learned about
 * a path before (IP_PMTUDISC_PROBE).
 */
import { dlopen, ptr } from 'bun:ffi';
import { type Ip, familyOf, ipBytes, ipFromBytes } from '../../model/ip.ts';

/** What one asks. */
export interface Datagram {
  readonly destination: Ip;
  readonly port: number;
  readonly ttl: number;
  readonly payloadBytes: number;
}

/** What its socket is told; null: nothing, for as long as it waited. */
export interface Told {
  readonly from: Ip;
  readonly type: number;
  readonly code: number;
  /** The next hop's, 0 where it is not about that. */
  readonly mtuBytes: number;
}

const { symbols: libc } = dlopen('libc.so.6', {
  socket: { args: ['i32', 'i32', 'i32'], returns: 'i32' },
  setsockopt: { args: ['i32', 'i32', 'i32', 'ptr', 'u32'], returns: 'i32' },
  connect: { args: ['i32', 'ptr', 'u32'], returns: 'i32' },
  send: { args: ['i32', 'ptr', 'usize', 'i32'], returns: 'i32' },
  recvmsg: { args: ['i32', 'ptr', 'i32'], returns: 'i32' },
});

const SOCK_DGRAM = 2;
const MSG_ERRQUEUE_DONTWAIT = 0x2040;
const PMTUDISC_PROBE = 3;
/** AF_*, the level of its options, and those: RECVERR, TTL or UNICAST_HOPS, MTU_DISCOVER. */
const FAMILIES = {
  4: { number: 2, level: 0, recverr: 11, ttl: 2, mtuDiscover: 10 },
  6: { number: 10, level: 41, recverr: 25, ttl: 16, mtuDiscover: 23 },
} as const;

/** A sockaddr_in or sockaddr_in6. */
function sockaddr(ip: Ip, port: number): Uint8Array {
  const family = familyOf(ip);
  const bytes = new Uint8Array(family === 4 ? 16 : 28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, FAMILIES[family].number, true);
  view.setUint16(2, port);
  bytes.set(ipBytes(ip), family === 4 ? 4 : 8);
  return bytes;
}

function open({ destination, port, ttl, payloadBytes }: Datagram): number {
  const family = FAMILIES[familyOf(destination)];
  const fd = libc.socket(family.number, SOCK_DGRAM, 0);
  const set = (option: number, value: number): number =>
    libc.setsockopt(fd, family.level, option, ptr(Int32Array.of(value)), 4);
  const address = sockaddr(destination, port);
  const faults = [
    set(family.recverr, 1),
    set(family.ttl, ttl),
    set(family.mtuDiscover, PMTUDISC_PROBE),
    libc.connect(fd, ptr(address), address.length),
  ];
  if (faults.some((fault) => fault < 0)) throw new Error(`cannot ask ${destination}`);
  // An empty buffer has no address.
  libc.send(fd, ptr(new Uint8Array(payloadBytes + 1)), payloadBytes, 0);
  return fd;
}

const CONTROL_BYTES = 256;

/** A msghdr with room for what is told, and nothing for what was sent. */
function message(control: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(56);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(32, BigInt(ptr(control)), true);
  view.setBigUint64(40, BigInt(control.length), true);
  return bytes;
}

/** What is in the error queue of a socket: a sock_extended_err behind the cmsghdr, and a sockaddr behind that. */
function read(fd: number, family: 4 | 6): Told | null {
  const control = new Uint8Array(CONTROL_BYTES);
  if (libc.recvmsg(fd, ptr(message(control)), MSG_ERRQUEUE_DONTWAIT) < 0) return null;
  const view = new DataView(control.buffer, 16);
  const address = family === 4 ? control.subarray(36, 40) : control.subarray(40, 56);
  return {
    from: ipFromBytes(address),
    type: view.getUint8(5),
    code: view.getUint8(6),
    mtuBytes: view.getUint32(8, true),
  };
}

const [questionsText = '[]', waitText = '0'] = process.argv.slice(2);
const questions = JSON.parse(questionsText) as Datagram[];
const sockets = questions.map((each) => ({ fd: open(each), family: familyOf(each.destination) }));
await Bun.sleep(Number(waitText));
const told = sockets.map(({ fd, family }) => read(fd, family));
process.stdout.write(JSON.stringify(told));
