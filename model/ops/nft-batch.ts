import { getNetns, withNetns } from '../host.ts';
import { applyBatch } from '../nftables-apply.ts';
import { type NftCommand, formatCommand } from '../nftables.ts';
import { type OpKind, done } from '../op.ts';
import { quoteForShell } from '../shell.ts';

/** Changes the ruleset by several commands at once: all of them or none. */
export interface NftBatch {
  readonly commands: readonly NftCommand[];
}

/** In quotes where a shell would read it otherwise than as nft's own words. */
function quoted(text: string): string {
  return /["'|&;<>$`]/.test(text) ? quoteForShell(text) : text;
}

export const nftBatch: OpKind<'nft.batch'> = {
  apply: (host, { netns: name, commands }) => {
    const netns = getNetns(host, name);
    const after = applyBatch(netns.nftables, commands);
    return after.ok ? done(withNetns(host, name, { ...netns, nftables: after.ruleset })) : after;
  },
  describe: ({ commands }) => commands.map((command) => `nft ${quoted(formatCommand(command))}`),
  sign: ({ commands }) =>
    commands.every((c) => c.do.startsWith('delete'))
      ? '-'
      : commands.every((c) => c.do.startsWith('add'))
        ? '+'
        : '~',
  reads: ({ netns }) => [`netns ${netns}`],
  writes: ({ netns }) => [`nftables ${netns}`],
  removes: () => [],
};
