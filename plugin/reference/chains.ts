/** Removing the packet filter's rules and chains that the reference chain made for one attachment. */
import { removeFromIptables } from './iptables.ts';
import { referenceNames } from './names.ts';
import { removeFromNftables } from './nft.ts';
import type { RunProgram } from './programs.ts';
import type { DepartingRules } from './removal.ts';

/**
 * Removes the packet filter's rules and chains of one attachment that the reference chain made, by the machine's own
 * programs; where one is missing it has made nothing. Answers the commands that did it. May be called again: what is
 * gone is not looked for. Throws a CniError when a program refuses.
 */
export function removeReferenceRules(run: RunProgram, departing: DepartingRules): string[] {
  const names = referenceNames(departing.key);
  return [
    ...removeFromIptables(run, 'iptables', names, departing),
    ...removeFromIptables(run, 'ip6tables', names, departing),
    ...removeFromNftables(run, names, departing),
  ];
}
