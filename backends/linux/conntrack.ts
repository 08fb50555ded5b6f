/** Forgetting the tracked connections of an address. */
import type { Errno, Fault } from '../../model/errno.ts';
import { ipBytes } from '../../model/ip.ts';
import { TRANSPORTS } from '../../model/nftables.ts';
import type { OpOf } from '../../model/op.ts';
import {
  type Flow,
  type FlowField,
  decodeFlowCount,
  decodeFlowOf,
  decodeFlowTo,
  encodeFlowCountGet,
  encodeFlowDel,
  encodeFlowDump,
  encodeFlowSearch,
  portNumber,
} from './conntrack-message.ts';
import type { Kernel } from './kernel.ts';
import { type NetlinkSocket, isFault } from './socket.ts';

/** What a kernel says that has no nfnetlink, or no ctnetlink in it: it tracks nothing that could be forgotten. */
const UNSUPPORTED: ReadonlySet<Errno> = new Set<Errno>(['EPROTONOSUPPORT', 'EOPNOTSUPP', 'EINVAL']);

const FIELDS: readonly FlowField[] = [
  { tuple: 'original', end: 'source' },
  { tuple: 'original', end: 'destination' },
  { tuple: 'reply', end: 'source' },
  { tuple: 'reply', end: 'destination' },
];

/** From here on the kernel is to search. */
const MANY_FLOWS = 20_000;

/** Forgets them one by one; answers the first refusal, but goes on: the others are to go all the same. */
function forget(
  socket: NetlinkSocket,
  address: Uint8Array,
  flows: readonly Flow[],
): Fault | undefined {
  let first: Fault | undefined;
  for (const flow of flows) {
    const fault = socket.request(encodeFlowDel(address, flow));
    // It ended by itself since it was read.
    if (fault?.errno !== 'ENOENT') first ??= fault;
  }
  return first;
}

/**
 * Looks for the connections of an address and hands them to `visit`. Each search walks the hash table of the whole
 * machine: 9 ms for 262,144 buckets, and 0.2 µs for each connection that does not match. To be told of a connection
 * takes 2 µs. So with few connections one dump of all is the shortest way, with many four searches are.
 */
function findFlows(
  socket: NetlinkSocket,
  address: Uint8Array,
  count: number,
  visit: (flows: readonly Flow[]) => void,
): Fault | undefined {
  // The kernel cannot search for an IPv6 address.
  const searches = address.length === 4 && count >= MANY_FLOWS;
  for (const field of searches ? FIELDS : [undefined]) {
    let narrowed = true;
    const question = field ? encodeFlowSearch(address, field) : encodeFlowDump(address);
    const flows = socket.dump(question, (message) => {
      const flow = decodeFlowOf(message, address);
      if (!flow) narrowed = false;
      return flow;
    });
    if (isFault(flows)) return flows;
    visit(flows);
    // This kernel does not filter: it has told of all connections already.
    if (!narrowed) break;
  }
  return undefined;
}

/** Any address of a family: a dump of all connections, and a deletion by what names one, only need to know the family. */
const ANY_ADDRESS = { 4: new Uint8Array(4), 6: new Uint8Array(16) } as const;

/** Forgets every connection that was begun to one of these ports. */
function flushPorts(
  socket: NetlinkSocket,
  { family, ports }: Extract<OpOf<'conntrack.flush'>, { readonly ports: unknown }>,
): Fault | undefined {
  const numbers = new Set(
    ports.map(({ protocol, port }) => portNumber(TRANSPORTS[protocol], port)),
  );
  const address = ANY_ADDRESS[family];
  const flows = socket.dump(encodeFlowDump(address), (message) => decodeFlowTo(message, numbers));
  return isFault(flows) ? flows : forget(socket, address, flows);
}

/** Forgets the connections of an address, in any of its four places, or those begun to ports. */
export function flushConntrack(kernel: Kernel, op: OpOf<'conntrack.flush'>): Fault | undefined {
  const netns = kernel.netns(op.netns);
  if (isFault(netns)) return netns;
  const socket = netns.netfilter();
  if (isFault(socket)) return UNSUPPORTED.has(socket.errno) ? undefined : socket;
  const entries = socket.ask(encodeFlowCountGet(), decodeFlowCount);
  if (isFault(entries)) return UNSUPPORTED.has(entries.errno) ? undefined : entries;
  // Most netns track nothing.
  if (entries.count === 0) return undefined;
  if ('ports' in op) return flushPorts(socket, op);
  const address = ipBytes(op.ip);
  let refused: Fault | undefined;
  const fault = findFlows(socket, address, entries.count, (flows) => {
    const each = forget(socket, address, flows);
    refused ??= each;
  });
  return fault ?? refused;
}
