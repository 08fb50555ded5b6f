import { HOST_NETNS } from './host.ts';
import { formatCommand } from './nftables.ts';
import type { Op } from './op.ts';
import { describeOp } from './ops.ts';
import { describeCommand, namesPlace } from './ops/nft-batch.ts';
import { quoteForShell } from './shell.ts';

/** What runs a command in a netns: nothing for the own one. */
function enter(netns: string): string {
  if (netns === HOST_NETNS) return '';
  // `ip netns exec` takes names only, and would mount another /sys over the caller's.
  return `nsenter --net=${quoteForShell(netns.startsWith('/') ? netns : `/run/netns/${netns}`)} -- `;
}

function scriptOf(op: Op): string[] {
  if (op.op === 'netns.add' || op.op === 'netns.del') return [...describeOp(op)];
  const prefix = enter(op.netns);
  if (op.op !== 'nft.batch') return describeOp(op).map((line) => `${prefix}${line}`);
  // One batch stays one transaction, but for rules that nft knows by number.
  const numbered = op.commands
    .filter(namesPlace)
    .map((each) => `${prefix}${describeCommand(each)}`);
  const plain = op.commands.filter((command) => !namesPlace(command));
  if (plain.length === 0) return numbered;
  return [`${prefix}nft -f - <<'END'`, ...plain.map(formatCommand), 'END', ...numbered];
}

/** A shell script of `ip`, `bridge`, `nft` and `sysctl` that does what the operations do, and stops at the first failure. */
export function formatScript(ops: readonly Op[]): string {
  return ['#!/bin/sh', 'set -eu', ...ops.flatMap(scriptOf), ''].join('\n');
}
