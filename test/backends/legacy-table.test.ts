import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  LAYOUTS,
  decodeEntries,
  decodeInfo,
  entriesQuestion,
  infoQuestion,
} from '../../backends/linux/legacy-table-message.ts';
import type { LegacyTable } from '../../sim/legacy-table.ts';
import { legacyTables } from '../arbitraries/legacy-table.ts';

/** Where the target of an entry without matches begins: the size of struct ipt_entry and its siblings. */
const ENTRY_BYTES = { ip: 112, ip6: 168, arp: 192 } as const;
const TARGET_BYTES = 40;
const VERDICTS = { drop: -1, accept: -2 } as const;

/** What the kernel answers about a table: rules with matches of any size, and behind those of each chain its policy. */
function answersOf(
  { family, name, chains }: LegacyTable & { readonly family: keyof typeof LAYOUTS },
  matchBytes: number,
): { readonly info: Uint8Array; readonly entries: (question: Uint8Array) => Uint8Array } {
  const layout = LAYOUTS[family];
  const count = chains.reduce((sum, { rules }) => sum + rules + 1, 0);
  const bytes = new Uint8Array(count * (ENTRY_BYTES[family] + matchBytes + TARGET_BYTES));
  const view = new DataView(bytes.buffer);
  let length = 0;
  const entry = (matches: number, verdict: number): number => {
    const at = length;
    const target = ENTRY_BYTES[family] + matches;
    view.setUint16(at + layout.targetOffsetAt, target, true);
    view.setUint16(at + layout.targetOffsetAt + 2, target + TARGET_BYTES, true);
    view.setInt32(at + target + 32, verdict, true);
    length += target + TARGET_BYTES;
    return at;
  };
  const info = infoQuestion(name, layout);
  const told = new DataView(info.buffer);
  for (const { hook, rules, policy } of chains) {
    const number = layout.hooks.findIndex((each) => each === hook);
    told.setUint32(32, told.getUint32(32, true) | (1 << number), true);
    told.setUint32(36 + 4 * number, length, true);
    for (let rule = 0; rule < rules; rule += 1) entry(matchBytes, VERDICTS.drop);
    const policyAt = entry(0, VERDICTS[policy]);
    told.setUint32(36 + 4 * (layout.hooks.length + number), policyAt, true);
  }
  told.setUint32(36 + 8 * layout.hooks.length, count, true);
  told.setUint32(40 + 8 * layout.hooks.length, length, true);
  return {
    info,
    entries: (question) => {
      const answer = Uint8Array.from(question);
      answer.set(bytes.subarray(0, length), 40);
      return answer;
    },
  };
}

/** The hooks of the chains of a table, by the bits that the kernel sets for them. */
function hooksOf(family: keyof typeof LAYOUTS, validHooks: number): string[] {
  const info = infoQuestion('filter', LAYOUTS[family]);
  new DataView(info.buffer).setUint32(32, validHooks, true);
  return decodeInfo(info, LAYOUTS[family]).spans.map(({ hook }) => hook);
}

const matchSizes = fc.nat(20).map((count) => count * 8);

describe('a table of iptables-legacy', () => {
  it('has the rules and the policies that the kernel tells of', () => {
    fc.assert(
      fc.property(legacyTables(), matchSizes, (table, matchBytes) => {
        const layout = LAYOUTS[table.family];
        const { info, entries } = answersOf(table, matchBytes);
        const told = decodeInfo(info, layout);
        const chains = decodeEntries(entries(entriesQuestion(table.name, told)), told, layout);
        const inOrder = layout.hooks.flatMap((hook) =>
          table.chains.filter((chain) => chain.hook === hook),
        );
        expect(chains).toEqual(inOrder);
      }),
    );
  });

  it('is asked for by its name, in as many bytes as the kernel wants', () => {
    expect(infoQuestion('mangle', LAYOUTS.ip)).toHaveLength(84);
    expect(infoQuestion('mangle', LAYOUTS.ip6)).toHaveLength(84);
    expect(infoQuestion('filter', LAYOUTS.arp)).toHaveLength(68);
    const question = entriesQuestion('filter', { spans: [], entriesBytes: 632 });
    expect(question).toHaveLength(672);
    expect(new TextDecoder().decode(question.subarray(0, 7))).toBe('filter\0');
    expect(new DataView(question.buffer).getUint32(32, true)).toBe(632);
  });

  it('has its chains where the kernel counts them', () => {
    // NF_INET_LOCAL_IN and NF_INET_FORWARD; NF_ARP_OUT, which comes before NF_ARP_FORWARD.
    expect(hooksOf('ip', 0b00110)).toEqual(['input', 'forward']);
    expect(hooksOf('ip6', 0b11001)).toEqual(['prerouting', 'output', 'postrouting']);
    expect(hooksOf('arp', 0b010)).toEqual(['output']);
  });

  it('that is not whole, or another one by now, is not understood', () => {
    const anything = fc.uint8Array({ minLength: 40, maxLength: 900 });
    fc.assert(
      fc.property(legacyTables(), matchSizes, anything, (table, matchBytes, bytes) => {
        const layout = LAYOUTS[table.family];
        const told = decodeInfo(answersOf(table, matchBytes).info, layout);
        const chains = decodeEntries(bytes, told, layout);
        if (chains) expect(chains.map(({ hook }) => hook)).toEqual(told.spans.map((s) => s.hook));
        expect(decodeEntries(bytes.fill(0), told, layout)).toBeUndefined();
      }),
    );
  });
});
