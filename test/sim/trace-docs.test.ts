/** The transcripts of docs/trace.md are what the simulator prints. `UPDATE=1` writes them. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { formatJourney, travel } from '../../sim/journey.ts';
import { BROKEN_HOSTS } from '../broken/all.ts';
import { brokenWorld, requestOf } from '../broken/broken-host.ts';

const FILE = join(import.meta.dirname, '../../docs/trace.md');
const TRANSCRIPT = /<!-- transcript: (.+) -->\n\n?```\n([\s\S]*?)```/g;

function transcriptOf(name: string): string {
  const broken = BROKEN_HOSTS.find((each) => each.name === name);
  if (!broken?.trace) throw new Error(`no broken host is one where ${name}, seen by a packet`);
  const { from, to } = broken.trace;
  const command = `$ cube-cni trace ${from} ${to}`;
  return [command, ...formatJourney(travel(brokenWorld(broken), requestOf(broken.trace))), ''].join(
    '\n',
  );
}

/** What the golden texts hold is shown as it is. */
const GOLDEN = /<!-- golden: (.+) -->\n\n```\n([\s\S]*?)```/g;

it('docs/trace.md shows golden texts', () => {
  const text = readFileSync(FILE, 'utf8');
  const written = text.replaceAll(GOLDEN, (_whole, name: string) => {
    const golden = readFileSync(join(import.meta.dirname, `golden/${name}.txt`), 'utf8');
    return `<!-- golden: ${name} -->\n\n\`\`\`\n${golden}\`\`\``;
  });
  if (process.env['UPDATE'] === '1') writeFileSync(FILE, written);
  else expect(written).toBe(text);
});

it('docs/trace.md holds what is printed', () => {
  const text = readFileSync(FILE, 'utf8');
  const names = [...text.matchAll(TRANSCRIPT)].map(([, name = '']) => name);
  expect(names.length).toBeGreaterThan(0);
  const written = text.replaceAll(
    TRANSCRIPT,
    (_whole, name: string) => `<!-- transcript: ${name} -->\n\n\`\`\`\n${transcriptOf(name)}\`\`\``,
  );
  if (process.env['UPDATE'] === '1') writeFileSync(FILE, written);
  else expect(written).toBe(text);
});
