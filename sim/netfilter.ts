/** Netfilter is not evaluated yet: where base chains would see a packet, the trace says so. */
import { familyOf } from '../model/ip.ts';
import type { LinkRef } from '../model/link.ts';
import type { ChainHook, Table } from '../model/nftables.ts';
import type { Frame, IpPacket } from './frame.ts';
import { type Place, type Run, netnsOf, note } from './run.ts';

type Hook = ChainHook['hook'];

function baseChains(tables: readonly Table[], family: 4 | 6, hook: Hook): number {
  const sees = (table: Table): boolean =>
    table.family === 'inet' || table.family === (family === 4 ? 'ip' : 'ip6');
  return tables
    .filter(sees)
    .flatMap((table) => Object.values(table.chains))
    .filter((chain) => chain.hook?.hook === hook).length;
}

/** Names the base chains that the packet passes at these hooks, if there are any. */
export function noteNetfilter(
  run: Run,
  at: Place,
  packet: IpPacket,
  ...hooks: readonly Hook[]
): void {
  const tables = Object.values(netnsOf(run, at.netns).nftables);
  for (const hook of hooks) {
    const count = baseChains(tables, familyOf(packet.destination), hook);
    if (count === 0) continue;
    const chains = count === 1 ? '1 base chain' : `${count} base chains`;
    const text = `netfilter: ${chains} at ${hook} ${count === 1 ? 'is' : 'are'} not evaluated yet`;
    note(run, at, 'netfilter', packet, text, { rule: 'K-8.1' });
  }
}

/** With br_netfilter, frames between the ports of a bridge pass the IP chains of its netns too. */
export function noteBridgeNetfilter(run: Run, at: LinkRef, { packet }: Frame): void {
  if (packet.kind !== 'ip') return;
  const name = familyOf(packet.destination) === 4 ? 'iptables' : 'ip6tables';
  if (netnsOf(run, at.netns).sysctls[`net/bridge/bridge-nf-call-${name}`] !== '1') return;
  noteNetfilter(run, at, packet, 'prerouting', 'forward', 'postrouting');
}
