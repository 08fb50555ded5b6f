/** What those who look for the guilty are given, and answer. */
import type { Host } from '../../model/host.ts';
import type { Flow } from '../../model/route-lookup.ts';
import type { Cause } from '../cause.ts';
import type { ProbeRequest } from '../probe.ts';
import type { Hop, Verdict } from '../trace.ts';
import type { World } from '../world.ts';

/** The end of a packet that somebody is to blame for. */
export type Dropped = Verdict & { readonly kind: 'dropped' };

/** The guilty object, in the netns where the packet ended unless it says another. */
export type Blame = Omit<Cause, 'netns' | 'reason'> & Partial<Pick<Cause, 'netns'>>;

/** A probe that was lost. */
export interface Inquiry {
  /** Before it was sent. */
  readonly world: World;
  readonly request: ProbeRequest;
  readonly hops: readonly Hop[];
}

/** Who is to blame for an end; `flows` are what routes may have been looked up for, as they were asked. */
export type BlameDrop = (host: Host, verdict: Dropped, flows: readonly Flow[]) => Blame;
