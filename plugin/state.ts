/** What calls need of the state file; the store implements it over SQLite, tests may over a Map. */
import type { Ip } from '../model/ip.ts';
import type { Attachment } from './attachment.ts';
import type { AttachmentKey } from './cni/request.ts';
import type { AddressBook } from './ipam/allocate.ts';

/** A record is pending from before the kernel is touched until the runtime has its result. */
export type RecordState = 'pending' | 'finished';

/** The process that works on a record: its pid alone may be another's by now. */
export interface Worker {
  readonly pid: number;
  /** When it started, in clock ticks since boot (proc(5), /proc/pid/stat, starttime). */
  readonly startTime: string;
}

export interface AttachmentRecord {
  readonly attachment: Attachment;
  readonly state: RecordState;
  readonly worker: Worker;
}

/** Something that several attachments use: it goes with the last of them. */
export type SharedObject =
  | `bridge ${string}`
  | `gateway ${string}`
  | `link ${string}`
  | `vlans ${string}`
  | `port ${string}`
  | `door ${string}`
  | `snat ${string}`
  | `localhost ${string}`
  | `policy ${string}`
  | `subnet ${string}`
  | `table ${string}`
  | `check ${string}`
  | `forward ${string}`
  | `sysctl ${string}`
  | `group ${string}`;

/** The state file. Every function is a transaction of its own, unless it runs within `transact`. */
export interface State {
  /** Runs `work` so that nobody else writes meanwhile; what it throws undoes it. */
  readonly transact: <T>(work: () => T) => T;
  readonly find: (key: AttachmentKey) => AttachmentRecord | undefined;
  /** All records, by key. */
  readonly list: () => AttachmentRecord[];
  /**
   * The addresses of a network as allocation asks for them; those of `except` count as free, those that were given back
   * since `releasedAfterMs` (since 1970) as taken for now.
   */
  readonly addressBook: (
    network: string,
    except?: AttachmentKey,
    releasedAfterMs?: number,
  ) => AddressBook;
  /** Writes a record as pending, with its addresses, what it uses, and the addresses handed out last. Replaces one of the same key. */
  readonly put: (attachment: Attachment, worker: Worker, uses: readonly SharedObject[]) => void;
  /** The runtime has its result. */
  readonly finish: (key: AttachmentKey) => void;
  /** Removes a record. With the time (ms since 1970) its addresses count as given back then; without it, as never used. */
  readonly remove: (key: AttachmentKey, releasedAtMs?: number) => void;
  /** Was the address another pod's before, as far as that is remembered? */
  readonly wasUsed: (network: string, ip: Ip) => boolean;
  /** The addresses of a network that were given back and are remembered, and when (ms since 1970). */
  readonly released: (
    network: string,
  ) => readonly { readonly ip: Ip; readonly releasedAtMs: number }[];
  /** Forgets that an address was used; answers whether that was remembered. */
  readonly forgetReleased: (network: string, ip: Ip) => boolean;
  /** Does a record other than that of `key` use the object? */
  readonly isUsedByOthers: (object: SharedObject, key: AttachmentKey) => boolean;
  /** Does a record other than that of `key` use an object that begins so? */
  readonly isAnyUsedByOthers: (kind: `${string} `, key: AttachmentKey) => boolean;
  /** The objects that begin so and that records other than that of `key` use, each with its user. */
  readonly othersUsing: (
    kind: `${string} `,
    key: AttachmentKey,
  ) => readonly { readonly object: string; readonly user: AttachmentKey }[];
  /** Notes that we made an object that nothing in the kernel marks as ours. */
  readonly claim: (object: SharedObject) => void;
  readonly isClaimed: (object: SharedObject) => boolean;
  readonly unclaim: (object: SharedObject) => void;
  /** A configuration that was found valid before, by the digest of its text, as JSON. */
  readonly findConfig: (digest: string) => string | undefined;
  readonly putConfig: (digest: string, json: string) => void;
  /** Whose is the address? */
  readonly ownerOf: (network: string, ip: Ip) => AttachmentKey | undefined;
}
