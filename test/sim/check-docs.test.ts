/** The transcripts of docs/check.md are what is found. `UPDATE=1` writes them. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { findingsOf } from '../../sim/findings/all.ts';
import { type FindingKind, extentOf, formatFindings } from '../../sim/findings/finding.ts';
import type { WholeHost } from '../../sim/legacy-table.ts';
import { BROKEN_HOSTS } from '../broken/all.ts';
import { brokenState } from '../broken/broken-host.ts';
import { ROUTED } from './hosts.ts';

const FILE = join(import.meta.dirname, '../../docs/check.md');
const TRANSCRIPT = /<!-- transcript: (.+) -->\n(?:\n```\n[\s\S]*?```\n)?/g;

const plain = (text: string): string => text;
const PLAIN = { bold: plain, dim: plain, green: plain, red: plain, yellow: plain };

function wholeHost(name: string): WholeHost {
  if (name === 'nothing is wrong') return { host: ROUTED, legacyTables: {} };
  const broken = BROKEN_HOSTS.find((each) => each.name === name);
  if (!broken?.check) throw new Error(`no broken host is one where ${name}, as check would see`);
  return { host: brokenState(broken), legacyTables: broken.legacyTables ?? {} };
}

function transcriptOf(name: string): string {
  const { host, legacyTables } = wholeHost(name);
  const findings = findingsOf(host, legacyTables);
  return ['$ cube-cni check', ...formatFindings(findings, extentOf(host), PLAIN), ''].join('\n');
}

it('docs/check.md holds what is printed', () => {
  const text = readFileSync(FILE, 'utf8');
  const names = [...text.matchAll(TRANSCRIPT)].map(([, name = '']) => name);
  expect(names.length).toBeGreaterThan(0);
  const written = text.replaceAll(
    TRANSCRIPT,
    (_whole, name: string) =>
      `<!-- transcript: ${name} -->\n\n\`\`\`\n${transcriptOf(name)}\`\`\`\n`,
  );
  if (process.env['UPDATE'] === '1') writeFileSync(FILE, written);
  else expect(written).toBe(text);
});

/** Every kind, by name: one more, or one less, is an error of `tsc` here. */
const KINDS: Readonly<Record<FindingKind, true>> = {
  'bridge-mac': true,
  'default-route': true,
  'duplicate-address': true,
  'duplicate-mac': true,
  forwarding: true,
  gateway: true,
  'ipv6-disabled': true,
  'link-down': true,
  'link-without-record': true,
  masquerade: true,
  mtu: true,
  networkd: true,
  'overlapping-subnets': true,
  'port-without-master': true,
  'prefix-route': true,
  reachability: true,
  'record-without-link': true,
  'reverse-path': true,
  'rule-of-empty-table': true,
  'stale-fdb-entry': true,
  'stale-neighbour': true,
  'unnamed-netns': true,
  'unread-table': true,
  'untranslated-answer': true,
  'vxlan-remote': true,
};

it.each(Object.keys(KINDS))('docs/check.md tells of %s', (kind) => {
  expect(readFileSync(FILE, 'utf8')).toMatch(new RegExp(`^\\|.*\`${kind}\`.*\\|.*\\|$`, 'm'));
});
