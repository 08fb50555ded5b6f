/** What docs/trace.md shows of `plan --reach` is what is printed. `UPDATE=1` writes it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { HOST_NETNS } from '../../model/host.ts';
import { type ReachChange, reachChange } from '../../sim/reach-change.ts';
import { formatChange } from '../../sim/reach-ports-text.ts';
import { attachPod } from '../plugin/machine.ts';
import { applyAll } from './pods.ts';
import { type Turn, nodeWith, turnOfAdd, withPorts } from './published-host.ts';

const FILE = join(import.meta.dirname, '../../docs/trace.md');
const SHOWN = /<!-- reach: (.+) -->\n(?:\n```\n[\s\S]*?```\n)?/g;

const IPV4 = { ipam: { type: 'cube-ipam', subnet: '10.7.0.0/24' } };
const MOST = 400;

/** The names that people would give the pods. */
const NAMES = {
  '/run/netns/pod0': 'pod-c',
  '/run/netns/pod1': 'pod-a',
  '/run/netns/pod2': 'pod-b',
};

function named({ before, after }: Turn): ReachChange {
  const text = Object.entries(NAMES).reduce(
    (json, [path, name]) => json.replaceAll(path, name),
    JSON.stringify(reachChange(before, after, MOST)),
  );
  return JSON.parse(text) as ReachChange;
}

function podComes(): ReachChange {
  const port = { protocol: 'tcp', hostPort: 8080, containerPort: 80 } as const;
  return named(turnOfAdd(nodeWith(2, IPV4), withPorts([port], IPV4)));
}

function masqueradeGone(): ReachChange {
  const machine = nodeWith(2, IPV4);
  attachPod(machine, withPorts([], IPV4), 0);
  const before = machine.backend.host();
  const ref = { family: 'inet', table: 'cube-cni' } as const;
  const commands = [{ ...ref, do: 'flush chain', chain: 'postrouting' }] as const;
  return named({
    before,
    after: applyAll(before, [{ op: 'nft.batch', netns: HOST_NETNS, commands }]),
  });
}

const TEXTS: Readonly<Record<string, () => string>> = {
  'a pod comes, whose port 80 is port 8080 of the host': () => formatChange(podComes()),
  'somebody has removed the masquerade of the pods': () => formatChange(masqueradeGone()),
  'a change of a port in JSON': () => {
    const [first] = podComes().ports.changes;
    return `${JSON.stringify(first, null, 2)}\n`;
  },
};

it('docs/trace.md shows whom plans connect and cut', () => {
  const text = readFileSync(FILE, 'utf8');
  const names = [...text.matchAll(SHOWN)].map(([, name = '']) => name);
  expect(new Set(names)).toEqual(new Set(Object.keys(TEXTS)));
  const written = text.replaceAll(
    SHOWN,
    (_whole, name: string) => `<!-- reach: ${name} -->\n\n\`\`\`\n${TEXTS[name]?.() ?? ''}\`\`\`\n`,
  );
  if (process.env['UPDATE'] === '1') writeFileSync(FILE, written);
  else expect(written).toBe(text);
});
