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
): fc.Arbitrary<LegacyTable & { readonly family: LegacyFamily }> {
  return fc.constantFrom(...families).chain((family) =>
    fc.constantFrom(...(family === 'arp' ? ['filter'] : Object.keys(HOOKS))).chain((name) => {
      const chains = (HOOKS[name] ?? []).map((hook) =>
        fc.record({
          hook: fc.constant(hook),
          rules: fc.nat(3),
          policy: fc.constantFrom('accept' as const, 'drop' as const),
        }),
      );
      return fc.tuple(...chains).map((all) => ({ family, name, chains: all }));
    }),
  );
}

/** Where chains of nft are that are not read, by family. */
const NFT_HOOKS = {
  netdev: ['ingress', 'egress'],
  inet: ['ingress'],
  arp: ['input', 'output'],
} as const;

/** Any table of nft that is not read, which at links is at some of those of the routed host. */
function nftTables(): fc.Arbitrary<LegacyTable> {
  return fc.constantFrom('netdev' as const, 'inet' as const, 'arp' as const).chain((family) => {
    const chain = fc
      .record({
        hook: fc.constantFrom(...NFT_HOOKS[family]),
        devices: fc.subarray(['v-a', 'cni0', 'v-c', 'eth0', 'v-*']),
        rules: fc.nat(2),
        policy: fc.constantFrom('accept' as const, 'drop' as const),
      })
      .map(({ devices, ...rest }) => (family === 'arp' ? rest : { ...rest, devices }));
    return fc.record({
      program: fc.constant('nft' as const),
      family: fc.constant(family),
      name: fc.constantFrom('filter', 'nat'),
      chains: fc.array(chain, { minLength: 1, maxLength: 2 }),
    });
  });
}

/** Some tables, each once, in some of these netns. */
export function legacyTablesIn(netns: readonly string[]): fc.Arbitrary<LegacyTables> {
  const some = fc.uniqueArray(fc.oneof(legacyTables(), nftTables()), {
    maxLength: 4,
    selector: ({ program, family, name }) => `${program} ${family} ${name}`,
  });
  return fc.dictionary(fc.constantFrom(...netns), some);
}
