/**
 * Writes vectors.json anew: the messages of messages.ts, each accepted by the kernel in a fresh netns, the kernel's
 * answers with what they were decoded to, and nft's own messages for the same batch. Root, nft, conntrack and strace; run it as
 * `bun test/backends/netlink/record.ts` and read the difference before committing it.
 */
import { writeFileSync } from 'node:fs';
import { Kernel } from '../../../backends/linux/kernel.ts';
import type { Message } from '../../../backends/linux/message.ts';
import { addNetns, delNetns } from '../../../backends/linux/netns.ts';
import { encodeBatch } from '../../../backends/linux/nftables-batch.ts';
import { isFault } from '../../../backends/linux/socket.ts';
import type { Fault } from '../../../model/errno.ts';
import { formatCommand } from '../../../model/nftables.ts';
import { ANSWERS } from './answers.ts';
import { BATCH, CHANGES, FLOWS, QUESTIONS, REMOVALS, REMOVAL_BATCH } from './messages.ts';

const NETNS = 'cube-record';
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function must<T extends object>(answer: T | Fault, what: string): T {
  if (isFault(answer)) throw new Error(`${what}: ${answer.errno} ${answer.text}`);
  return answer;
}

addNetns(NETNS);
const kernel = new Kernel();
const encoded: Record<string, string> = {};
const decoded: Record<string, { hex: string; value: unknown }[]> = {};
let nft: string[] = [];
try {
  const netns = must(kernel.netns(NETNS), NETNS);
  const route = must(netns.route(), 'rtnetlink');
  const netfilter = must(netns.netfilter(), 'nfnetlink');
  const send = (messages: readonly (readonly [string, Uint8Array])[]): void => {
    for (const [name, bytes] of messages) {
      encoded[name] = hex(bytes);
      const fault = route.request(bytes);
      if (fault) throw new Error(`${name}: ${fault.errno} ${fault.text}`);
    }
  };
  const sendBatch = (name: string, batch: typeof BATCH): void => {
    const bytes = encodeBatch(batch);
    encoded[name] = hex(bytes);
    const refusal = netfilter.batch(bytes);
    if (refusal) throw new Error(`${name}: ${JSON.stringify(refusal)}`);
  };
  send(CHANGES);
  sendBatch('batch', BATCH);
  for (const flow of FLOWS) {
    const words = ['netns', 'exec', NETNS, 'conntrack', '-I', '-t', '600', ...flow.split(' ')];
    const { exitCode, stderr } = Bun.spawnSync(['ip', ...words]);
    if (exitCode !== 0) throw new Error(`${flow}: ${stderr.toString()}`);
  }
  for (const { name, protocol, question, decode } of ANSWERS) {
    const socket = protocol === 'route' ? route : netfilter;
    const take = (message: Message) => {
      const bytes = message.bytes.slice(message.start - 16, message.end);
      return { hex: hex(bytes), value: decode(message) ?? null };
    };
    decoded[name] = [...must(socket.dump(question, take), name)];
  }
  sendBatch('removal batch', REMOVAL_BATCH);
  send(REMOVALS);
  for (const [name, bytes] of QUESTIONS) encoded[name] = hex(bytes);

  // What nft sends for the same commands: strace writes the bytes of every send as a hex dump.
  const script = BATCH.map(formatCommand).join('\n');
  const run = Bun.spawnSync(
    [
      'ip',
      'netns',
      'exec',
      NETNS,
      'strace',
      '-e',
      'trace=sendmsg',
      '-e',
      'write=all',
      'nft',
      '-f',
      '-',
    ],
    {
      stdin: Buffer.from(script),
    },
  );
  const dumps = run.stderr
    .toString()
    .split(/^sendmsg/m)
    .slice(1);
  const last = dumps.at(-1) ?? '';
  const bytes = Buffer.from(
    [...last.matchAll(/^ \| [0-9a-f]+ {2}((?:[0-9a-f]{2} {1,2}){1,16})/gm)]
      .map((m) => (m[1] ?? '').replaceAll(' ', ''))
      .join(''),
    'hex',
  );
  for (let at = 0; at + 16 <= bytes.length; at += (bytes.readUInt32LE(at) + 3) & ~3) {
    nft = [...nft, hex(bytes.subarray(at, at + bytes.readUInt32LE(at)))];
  }
  if (nft.length !== BATCH.length + 2)
    throw new Error(`nft sent ${nft.length} messages:\n${run.stderr.toString().slice(-2000)}`);
} finally {
  kernel.close();
  delNetns(NETNS);
}
const file = new URL('vectors.json', import.meta.url).pathname;
writeFileSync(file, `${JSON.stringify({ encoded, decoded, nft }, undefined, 1)}\n`);
console.log(
  `${file}: ${Object.keys(encoded).length} encoded, ${Object.values(decoded).flat().length} decoded, ${nft.length} of nft`,
);
