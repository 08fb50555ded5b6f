import type { Ip } from '../../model/ip.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { AttachmentKey } from '../cni/request.ts';
import type { ProgramAnswer, RunProgram } from './programs.ts';

/** The rules to remove. */
export interface DepartingRules {
  readonly key: AttachmentKey;
  /** Addresses that were the attachment's and are nobody else's yet. */
  readonly addresses: readonly Ip[];
  /** Addresses of other links of the container in the same network: what it shares with them stays. */
  readonly shared: readonly Ip[];
}

/** A program's arguments, and how the command reads in a log. */
export interface Command {
  readonly args: readonly string[];
  readonly text: string;
}

/** Others change the rules too: what they removed between our look and our command is looked for again. */
const ATTEMPTS = 3;

/** What a program said when it failed, in one line. */
export function complaint({ status, stderr }: ProgramAnswer): string {
  return stderr.trim().split('\n')[0] || `exit status ${status}`;
}

/**
 * Runs the commands that `look` finds necessary until it finds none, and answers those that succeeded. Throws a
 * CniError when some never do.
 */
export function untilGone(
  run: RunProgram,
  program: string,
  look: () => readonly Command[],
): string[] {
  const done: string[] = [];
  let failed = '';
  for (let attempt = 1; ; attempt += 1) {
    const commands = look();
    if (commands.length === 0) return done;
    if (attempt > ATTEMPTS)
      throw new CniError(CNI_ERROR.kernel, `cannot remove what the reference plugins left`, failed);
    for (const { args, text } of commands) {
      const answer = run(program, args);
      if (answer?.status === 0) done.push(text);
      else failed = `${text}: ${answer ? complaint(answer) : 'the program is gone'}`;
    }
  }
}
