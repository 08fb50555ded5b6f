import { describe, expect, test } from 'vitest';
import { makeReader } from '../../../backends/linux/attribute.ts';
import { type Message, eachMessage } from '../../../backends/linux/message.ts';
import { encodeBatch } from '../../../backends/linux/nftables-batch.ts';
import { ANSWERS } from './answers.ts';
import { BATCH, CHANGES, QUESTIONS, REMOVALS, REMOVAL_BATCH } from './messages.ts';
import vectors from './vectors.json' with { type: 'json' };

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function messagesIn(bytes: Uint8Array): Message[] {
  const messages: Message[] = [];
  eachMessage(makeReader(bytes), bytes.length, (message) => messages.push(message));
  return messages;
}

/** The bytes behind the header, whose sequence number and ACK flag are the sender's own. */
function payload({ bytes, start, end }: Message): string {
  return hex(bytes.subarray(start, end));
}

const ANSWERED: Readonly<Record<string, readonly { hex: string; value: unknown }[]>> =
  vectors.decoded;

/** Decodes every recorded answer again with each of its bytes spoiled in turn. */
function decodeDamaged(): void {
  for (const { name, decode } of ANSWERS) {
    for (const { hex: text } of ANSWERED[name] ?? []) {
      const bytes = new Uint8Array(Buffer.from(text, 'hex'));
      for (let at = 16; at < bytes.length; at += 1) {
        const damaged = bytes.slice();
        damaged[at] = 0xff;
        for (const message of messagesIn(damaged)) decode(message);
      }
    }
  }
}

describe('messages that the kernel accepted', () => {
  const recorded: Readonly<Record<string, string>> = vectors.encoded;

  test.for([...CHANGES, ...REMOVALS, ...QUESTIONS])('%s', ([name, bytes]) => {
    expect(hex(bytes)).toBe(recorded[name]);
  });

  test('nft batches', () => {
    expect(hex(encodeBatch(BATCH))).toBe(recorded['batch']);
    expect(hex(encodeBatch(REMOVAL_BATCH))).toBe(recorded['removal batch']);
  });

  test('nothing else is recorded', () => {
    const names = [...CHANGES, ...REMOVALS, ...QUESTIONS].map(([name]) => name);
    expect(Object.keys(recorded).toSorted()).toEqual(
      [...names, 'batch', 'removal batch'].toSorted(),
    );
  });
});

describe('answers of the kernel', () => {
  test.for(ANSWERS.map(({ name, decode }) => ({ name, decode })))('$name', ({ name, decode }) => {
    const answers = ANSWERED[name] ?? [];
    expect(answers).not.toHaveLength(0);
    for (const { hex: text, value } of answers) {
      const [message] = messagesIn(new Uint8Array(Buffer.from(text, 'hex')));
      const decoded = message && decode(message);
      expect(decoded ?? null).toEqual(value);
    }
  });

  test('one damaged in any place is read without a crash', () => {
    expect(decodeDamaged).not.toThrow();
  });
});

test('a batch is what nft sends for it, but for the numbers by which nft refers to sets of the same batch', () => {
  const ours = messagesIn(encodeBatch(BATCH)).map(payload);
  const theirs = vectors.nft
    .flatMap((text) => messagesIn(new Uint8Array(Buffer.from(text, 'hex'))))
    .map(payload);
  expect(ours).toHaveLength(theirs.length);
  // The first message begins the batch.
  const refersToSet = BATCH.map(
    (command) =>
      'element' in command ||
      ('rule' in command && command.rule.statements.some((s) => 'set' in s || 'map' in s)),
  );
  const comparable = (_: string, index: number): boolean => !refersToSet[index - 1];
  expect(ours.filter(comparable)).toEqual(theirs.filter(comparable));
});
