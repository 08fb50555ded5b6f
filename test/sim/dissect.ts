/** Reads frames from bytes, field by field from the figures of the RFCs. It shares nothing with what writes them but the names of addresses. */
import { ipFromBytes } from '../../model/ip.ts';
import { macFromBytes } from '../../model/mac.ts';

/** What a frame says, and every sum in it that has to be a multiple of 65535 (RFC 1071: ones' complement). */
export interface Dissected {
  readonly text: string;
  readonly sums: readonly bigint[];
}

function number(bytes: Uint8Array): bigint {
  return BigInt(`0x0${[...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`);
}

function field(bytes: Uint8Array, at: number, length: number): number {
  return Number(number(bytes.subarray(at, at + length)));
}

/** Bytes as one long number: as 2^16 is 1 modulo 65535, that is the sum of its words. */
function sum(...parts: readonly Uint8Array[]): bigint {
  const bytes = parts.flatMap((part) => [...part]);
  return number(Uint8Array.from(bytes.length % 2 === 0 ? bytes : [...bytes, 0]));
}

function end(ip: string, port: number): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}

interface Ends {
  readonly from: string;
  readonly to: string;
}

const ECHO = new Map([
  [8, 'echo request'],
  [128, 'echo request'],
  [0, 'echo reply'],
  [129, 'echo reply'],
]);

function icmp(bytes: Uint8Array, { from, to }: Ends): string {
  const type = field(bytes, 0, 1);
  const echo = ECHO.get(type);
  if (echo !== undefined)
    return `${echo} ${from} > ${to} id ${field(bytes, 4, 2)} seq ${field(bytes, 6, 2)} with ${bytes.length - 8}`;
  const target = ipFromBytes(bytes.subarray(8, 24));
  const option = `option ${field(bytes, 24, 1)} of ${8 * field(bytes, 25, 1)}`;
  const mac = macFromBytes(bytes.subarray(26, 32));
  const flags = field(bytes, 4, 4).toString(16);
  return type === 135
    ? `nd who-has ${target} tell ${from} ${option} ${mac} flags ${flags}`
    : `nd ${target} is-at ${mac} ${option} flags ${flags}`;
}

const VXLAN_PORTS = [4789, 8472];

function udp(bytes: Uint8Array, { from, to }: Ends): Dissected {
  const [source, destination] = [field(bytes, 0, 2), field(bytes, 2, 2)];
  const sums = field(bytes, 6, 2) === 0 ? [1n] : [];
  const cut = field(bytes, 4, 2) === bytes.length ? '' : 'wrong length ';
  if (VXLAN_PORTS.includes(destination) && field(bytes, 8, 1) === 8) {
    const inner = dissect(bytes.subarray(16));
    const text = `vxlan ${field(bytes, 12, 3)} ${from} > ${to} from ${source} to ${destination} (${inner.text})`;
    return { text: cut + text, sums: [...sums, ...inner.sums] };
  }
  const text = `udp ${end(from, source)} > ${end(to, destination)} with ${bytes.length - 8}`;
  return { text: cut + text, sums };
}

const TCP_FLAGS: Readonly<Record<number, string>> = {
  0x02: 'syn',
  0x10: 'ack',
  0x12: 'syn ack',
  0x14: 'rst ack',
};

function tcp(bytes: Uint8Array, { from, to }: Ends): string {
  const flags = TCP_FLAGS[field(bytes, 13, 1)] ?? '?';
  const ends = `${end(from, field(bytes, 0, 2))} > ${end(to, field(bytes, 2, 2))}`;
  return `tcp ${flags} ${ends} ack ${field(bytes, 8, 4)} with ${bytes.length - 4 * (field(bytes, 12, 1) >> 4)}`;
}

function transport(protocol: number, bytes: Uint8Array, ends: Ends): Dissected {
  if (protocol === 17) return udp(bytes, ends);
  return { text: protocol === 6 ? tcp(bytes, ends) : icmp(bytes, ends), sums: [] };
}

function ipPacket(bytes: Uint8Array): Dissected {
  const is4 = field(bytes, 0, 1) === 0x45;
  const [at, length, header] = is4 ? [12, 4, 20] : [8, 16, 40];
  const protocol = field(bytes, is4 ? 9 : 6, 1);
  const addresses = bytes.subarray(at, header);
  const rest = bytes.subarray(header);
  const ends = {
    from: ipFromBytes(addresses.subarray(0, length)),
    to: ipFromBytes(addresses.subarray(length)),
  };
  const inner = transport(protocol, rest, ends);
  const pseudo = Uint8Array.of(rest.length >> 8, rest.length, 0, protocol);
  const whole = is4 && protocol === 1 ? sum(rest) : sum(addresses, pseudo, rest);
  const said = field(bytes, is4 ? 2 : 4, 2) + (is4 ? 0 : 40);
  const ttl = `ttl ${field(bytes, is4 ? 8 : 7, 1)}`;
  const df = is4 && field(bytes, 6, 2) === 0x4000 ? ' df' : '';
  const cut = said === bytes.length ? '' : ` says ${said} bytes`;
  return {
    text: `${ttl}${df}${cut} ${inner.text}`,
    sums: [...(is4 ? [sum(bytes.subarray(0, header))] : []), whole, ...inner.sums],
  };
}

function arp(bytes: Uint8Array): string {
  const mac = macFromBytes(bytes.subarray(8, 14));
  const [from, to] = [ipFromBytes(bytes.subarray(14, 18)), ipFromBytes(bytes.subarray(24, 28))];
  return field(bytes, 0, 8) === 0x0001080006040001
    ? `arp who-has ${to} tell ${from} from ${mac}`
    : `arp ${from} is-at ${mac} to ${to}`;
}

/** What a frame says. */
export function dissect(bytes: Uint8Array): Dissected {
  const [to, from] = [macFromBytes(bytes.subarray(0, 6)), macFromBytes(bytes.subarray(6, 12))];
  const isTagged = field(bytes, 12, 2) === 0x8100;
  const at = isTagged ? 16 : 12;
  const inner = bytes.subarray(at + 2);
  const { text, sums } =
    field(bytes, at, 2) === 0x0806 ? { text: arp(inner), sums: [] } : ipPacket(inner);
  const tag = isTagged ? `vlan ${field(bytes, 14, 2)} ` : '';
  return { text: `${from} > ${to} ${tag}${text}`, sums };
}
