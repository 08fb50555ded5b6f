import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '../..');
const RULE = /\bK-\d+(?:\.\d+)?/g;

/** The rules that the code names, with the files that name them. */
function citedRules(): Map<string, string[]> {
  const cited = new Map<string, string[]>();
  for (const top of ['model', 'backends', 'sim', 'plugin']) {
    for (const entry of readdirSync(join(root, top), { recursive: true, encoding: 'utf8' })) {
      const file = `${top}/${entry}`;
      if (!file.endsWith('.ts')) continue;
      for (const rule of new Set(readFileSync(join(root, file), 'utf8').match(RULE)))
        cited.set(rule, [...(cited.get(rule) ?? []), file]);
    }
  }
  return cited;
}

interface Entry {
  readonly rule: string;
  readonly code: readonly string[];
  readonly tests: readonly string[];
}

function pathsAfter(section: string, word: string): string[] {
  const line = section.split('\n').find((each) => each.startsWith(`- ${word}: `)) ?? '';
  return [...line.matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? '');
}

function entries(): Entry[] {
  const [, ...sections] = readFileSync(join(root, 'docs/kernel-rules.md'), 'utf8').split(/^## /m);
  return sections.map((section) => ({
    rule: /^K-\S+/.exec(section)?.[0] ?? '',
    code: pathsAfter(section, 'code'),
    tests: pathsAfter(section, 'tests'),
  }));
}

describe('docs/kernel-rules.md', () => {
  const documented = entries();
  const cited = citedRules();

  it('has every rule that the code names, once', () => {
    const rules = documented.map((entry) => entry.rule);
    expect([...cited.keys()].filter((rule) => !rules.includes(rule))).toEqual([]);
    expect(rules).toEqual([...new Set(rules)]);
  });

  it.each(documented)('says of $rule where it is in the code', ({ rule, code }) => {
    const files = cited.get(rule) ?? [];
    expect(code.filter((file) => !files.includes(file))).toEqual([]);
    expect(code.length === 0).toBe(files.length === 0);
  });

  it.each(documented)('names the tests that hold $rule', ({ tests }) => {
    expect(tests.length).toBeGreaterThan(0);
    expect(tests.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });
});
