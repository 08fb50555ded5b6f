/** The transcripts of docs/trace.md are what the simulator prints. `UPDATE=1` writes them. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { parseIp } from '../../model/ip.ts';
import { formatJourney, travel } from '../../sim/journey.ts';
import { makeWorld } from '../../sim/world.ts';
import { BROKEN_HOSTS } from './faults.ts';
import { ROUTED } from './hosts.ts';
import { applyAll } from './pods.ts';

const FILE = join(import.meta.dirname, '../../docs/trace.md');
const TRANSCRIPT = /<!-- transcript: (.+) -->\n\n?```\n([\s\S]*?)```/g;

function transcriptOf(name: string): string {
  const broken = BROKEN_HOSTS.find((each) => each.name === name);
  if (!broken) throw new Error(`no broken host is one where ${name}`);
  const host = applyAll(ROUTED, broken.ops);
  const request = { netns: broken.from, destination: parseIp(broken.to) };
  const command = `$ cube-cni trace ${broken.from} ${broken.to}`;
  return [command, ...formatJourney(travel(makeWorld(host), request)), ''].join('\n');
}

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
