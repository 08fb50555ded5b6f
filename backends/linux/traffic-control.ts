/** What traffic control does to the packets of links. */
import type { Ifname } from '../../model/ifname.ts';
import type { IngressQdisc, RootQdisc, TrafficControl } from '../../model/traffic-control.ts';
import { expectAnswer } from './answer.ts';
import { type NetlinkSocket, isFault } from './socket.ts';
import {
  type QdiscRecord,
  decodeQdisc,
  decodeRedirect,
  encodeFilterDump,
  encodeQdiscDump,
  encodeQdiscGet,
} from './traffic-control-message.ts';
import { wholeDump } from './whole-dump.ts';

/** Where to read, and how links are called there. */
export interface Place {
  readonly socket: NetlinkSocket;
  readonly netns: string;
  /** Undefined when it has just gone. */
  readonly nameOf: (ifindex: number) => Ifname | undefined;
}

/** The qdiscs of one link, as far as the kernel tells of them: of one that drops everything, as of a new link, it does not. */
function qdiscsOf({ socket, netns }: Place, ifindex: number): QdiscRecord[] {
  return (['root', 'ingress'] as const).flatMap((at) => {
    const answer = socket.dump(encodeQdiscGet(ifindex, at), decodeQdisc);
    if (isFault(answer) && (answer.errno === 'ENOENT' || answer.errno === 'ENODEV')) return [];
    return expectAnswer(answer, netns, `the qdiscs of link ${ifindex}`);
  });
}

function rootOf({ kind, bucket }: QdiscRecord): RootQdisc {
  return bucket ? { kind: 'tbf', ...bucket } : { kind: 'other', name: kind };
}

function ingressOf(place: Place, { ifindex, kind }: QdiscRecord): IngressQdisc {
  const ingress = { kind: kind === 'ingress' ? 'ingress' : 'clsact' } as const;
  const answer = place.socket.dump(encodeFilterDump(ifindex), decodeRedirect);
  // The link, or the qdisc, has gone since it was read.
  if (isFault(answer) && (answer.errno === 'ENODEV' || answer.errno === 'EINVAL')) return ingress;
  const [redirect] = expectAnswer(answer, place.netns, `the filters of link ${ifindex}`);
  if (!redirect) return ingress;
  const name = redirect.ifindex === 0 ? undefined : place.nameOf(redirect.ifindex);
  return { ...ingress, redirect: name ?? null };
}

function allQdiscs(place: Place): readonly QdiscRecord[] {
  const answer = place.socket.dump(wholeDump(encodeQdiscDump), decodeQdisc);
  // A kernel without traffic control (CONFIG_NET_SCHED) does none.
  if (isFault(answer) && answer.errno === 'EOPNOTSUPP') return [];
  return expectAnswer(answer, place.netns, 'the qdiscs');
}

/** What traffic control does, by ifindex, on these links or on all of the netns; links where it does nothing are left out. */
export function readTrafficControl(
  place: Place,
  ifindexes: Iterable<number> | 'all',
): Map<number, TrafficControl> {
  const records =
    ifindexes === 'all'
      ? allQdiscs(place)
      : [...ifindexes].flatMap((ifindex) => qdiscsOf(place, ifindex));
  const found = new Map<number, TrafficControl>();
  for (const record of records) {
    if (record.handle === 0 || record.at === undefined) continue;
    const part =
      record.at === 'root' ? { root: rootOf(record) } : { ingress: ingressOf(place, record) };
    found.set(record.ifindex, { ...found.get(record.ifindex), ...part });
  }
  return found;
}
