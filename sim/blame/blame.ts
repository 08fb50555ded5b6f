/** What those who look for the guilty are given, and answer. */
import type { Host } from '../../model/host.ts';
import type { Cause } from '../cause.ts';
import type { Verdict } from '../trace.ts';

/** The end of a packet that somebody is to blame for. */
export type Dropped = Verdict & { readonly kind: 'dropped' };

/** The guilty object, in the netns where the packet ended unless it says another. */
export type Blame = Omit<Cause, 'netns' | 'reason'> & Partial<Pick<Cause, 'netns'>>;

/** Who is to blame for an end. */
export type BlameDrop = (host: Host, verdict: Dropped) => Blame;
