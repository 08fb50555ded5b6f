import type { Clock } from '../../backends/apply.ts';
import type { Backend } from '../../backends/backend.ts';
import type { Ip } from '../../model/ip.ts';
import type { Attachment, Identity } from '../attachment.ts';
import type { Delegate } from '../ipam/delegate.ts';
import type { State, Worker } from '../state.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** Takes a line for the log; never fails and never waits. */
export type Log = (
  level: LogLevel,
  message: string,
  fields?: Readonly<Record<string, unknown>>,
) => void;

/** Everything outside a call that it works with. */
export interface CallContext {
  readonly backend: Backend;
  readonly state: State;
  readonly identity: Identity;
  /** This process. */
  readonly worker: Worker;
  /** Is the process still there? Another with its pid is not it. */
  readonly isAlive: (worker: Worker) => boolean;
  /**
   * Runs `work` while no other call on this machine observes or changes the network. Throws a CniError of
   * code 11 when the others take too long.
   */
  readonly exclusively: <T>(work: () => T) => T;
  /** Is the path the netns that this process is in? */
  readonly isOwnNetns: (path: string) => boolean;
  readonly clock: Clock;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Waits; never called while others wait for this call. */
  readonly pause: (durationMs: number) => void;
  /** The text of a file, undefined when it cannot be read. */
  readonly readText: (path: string) => string | undefined;
  /** The addresses that the reference's host-local has handed out in its folder, in no order. */
  readonly reservedByHostLocal: (folder: string) => readonly Ip[];
  readonly delegate: Delegate;
  /** Removes what the reference plugins made of an attachment that was taken over from them. Never called under the lock. */
  readonly depart: (attachment: Attachment) => void;
  readonly log: Log;
}
