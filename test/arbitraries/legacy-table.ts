/** Tables of iptables-legacy, in which chains have any number of rules and any policy. */
import fc from 'fast-check';
import type { LegacyFamily, LegacyTable, LegacyTables } from '../../sim/legacy-table.ts';

type HookName = LegacyTable['chains'][number]['hook'];

/** The hooks of each table (`valid_hooks` of net/ipv4/netfilter/iptable_*.c; that of arptables: arptable_filter.c). */
const HOOKS: Readonly<Record<string, readonly HookName[]>> = {
  filter: ['input', 'forward', 'output'],
  nat: ['prerouting', 'input', 'output', 'postrouting'],
  mangle: ['prerouting', 'input', 'forward', 'output', 'postrouting'],
  raw: ['prerouting', 'output'],
  security: ['input', 'forward', 'output'],
};

/** Any table, of which each chain is empty, or not. */
export function legacyTables(
  families: readonly LegacyFamily[] = ['ip', 'ip6', 'arp'],
): fc.Arbitrary<LegacyTable> {
  return fc.constantFrom(...families).chain((family) =>
    fc.constantFrom(...(family === 'arp' ? ['filter'] : Object.keys(HOOKS))).chain((name) => {
      const chains = (HOOKS[name] ?? []).map((hook) =>
        fc.record({
          hook: fc.constant(hook),
          rules: fc.nat(3),
          policy: fc.constantFrom('accept' as const, 'drop' as const),
        }),
      );
      return fc.tuple(...chains).map((all): LegacyTable => ({ family, name, chains: all }));
    }),
  );
}

/** Some tables, each once, in some of these netns. */
export function legacyTablesIn(netns: readonly string[]): fc.Arbitrary<LegacyTables> {
  const some = fc.uniqueArray(legacyTables(), {
    maxLength: 4,
    selector: ({ family, name }) => `${family} ${name}`,
  });
  return fc.dictionary(fc.constantFrom(...netns), some);
}
