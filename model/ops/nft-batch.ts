import { getNetns, withNetns } from '../host.ts';
import { applyBatch } from '../nftables-apply.ts';
import { type NftCommand, type Rule, formatCommand, formatRule } from '../nftables.ts';
import { type OpKind, done, refuse } from '../op.ts';
import { quoteForShell } from '../shell.ts';

/** Changes the ruleset by several commands at once: all of them or none. */
export interface NftBatch {
  readonly commands: readonly NftCommand[];
}

/** In quotes where a shell would read it otherwise than as nft's own words. */
function quoted(text: string): string {
  return /["'|&;<>$`]/.test(text) ? quoteForShell(text) : text;
}

/** A sed program that prints the numbers of rules in what `nft -a list chain` prints. */
const NUMBERS = 's/.* # handle //p';

/** What matches a rule as `nft list chain` prints it, however much it has counted. */
function lineOf(rule: Rule): string {
  return formatRule(rule)
    .replace(/[\\^$.*[\]#]/g, '\\$&')
    .replaceAll(' counter ', ' counter packets [0-9]* bytes [0-9]* ');
}

/** A command as a line for a shell. A rule is deleted, and another inserted before one, by a number that only the kernel knows. */
export function describeCommand(command: NftCommand): string {
  if (!namesPlace(command)) return `nft ${quoted(formatCommand(command))}`;
  const { family, table, chain, rule } = command;
  const where = `${family} ${table} ${chain}`;
  const list = `nft -a list chain ${where}`;
  if (command.do === 'insert rule')
    return `nft insert rule ${where} position "$(${list} | sed -n ${quoteForShell(NUMBERS)} | tail -n 1)" ${quoteForShell(formatRule(rule))}`;
  const program = `\\#^[[:space:]]*${lineOf(rule)} #${NUMBERS}`;
  return `nft delete rule ${where} handle "$(${list} | sed -n ${quoteForShell(program)} | head -n 1)"`;
}

/** Does a command need the number of a rule that is there? */
export function namesPlace(
  command: NftCommand,
): command is NftCommand & { readonly do: 'insert rule' | 'delete rule' } {
  return command.do === 'insert rule' || command.do === 'delete rule';
}

export const nftBatch: OpKind<'nft.batch'> = {
  apply: (host, { netns: name, commands }) => {
    const netns = getNetns(host, name);
    const after = applyBatch(netns.nftables, commands, host.kernel);
    return typeof after === 'string'
      ? refuse(after)
      : done(withNetns(host, name, { ...netns, nftables: after }));
  },
  describe: ({ commands }) => commands.map(describeCommand),
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
