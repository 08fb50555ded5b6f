/** Broken hosts: the routed host with one fault each, and the object that is to blame, which `trace`, `check` or both name. */
import type { BrokenHost } from './broken-host.ts';
import { BROKEN_LINKS } from './links.ts';
import { BROKEN_NEIGHBOURS } from './neighbours.ts';
import { BROKEN_NETFILTER } from './netfilter.ts';
import { BROKEN_ROUTING } from './routing.ts';
import { BROKEN_SIZES } from './sizes.ts';
import { BROKEN_TUNNELS } from './tunnels.ts';

export const BROKEN_HOSTS: readonly BrokenHost[] = [
  ...BROKEN_LINKS,
  ...BROKEN_ROUTING,
  ...BROKEN_NEIGHBOURS,
  ...BROKEN_NETFILTER,
  ...BROKEN_SIZES,
  ...BROKEN_TUNNELS,
];
