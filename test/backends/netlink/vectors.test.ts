import { describe, expect, test } from 'vitest';
import { type Reader, eachAttribute, makeReader } from '../../../backends/linux/attribute.ts';
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

/** The number of a set of the same batch, beside its name: in a list of elements, and in a lookup. */
const ID_OF_SET = 4;
const NEW_ELEMENTS = (10 << 8) | 12;
const LOOKUP = hex(new TextEncoder().encode('lookup\0'));

/** Attributes as pairs of type and value, inner ones as such pairs again. */
type Tree = readonly (readonly [type: number, value: string | Tree])[];

const withoutId = (tree: Tree): Tree => tree.filter(([type]) => type !== ID_OF_SET);

function treeOf(reader: Reader, start: number, end: number): Tree {
  const found: [number, string | Tree][] = [];
  eachAttribute(reader, start, end, (type, from, to) => {
    const isNest = (reader.view.getUint16(from - 2, true) & 0x8000) !== 0;
    found.push([type, isNest ? treeOf(reader, from, to) : hex(reader.bytes.subarray(from, to))]);
  });
  const isLookup = found.some(([, value]) => value === LOOKUP);
  return isLookup ? found.map(([type, value]) => [type, inner(value)]) : found;
}

function inner(value: string | Tree): string | Tree {
  return typeof value === 'string' ? value : withoutId(value);
}

/** A message without the numbers by which nft refers to sets of the same batch. */
function comparable(message: Message): unknown {
  const { bytes, view, type, start, end } = message;
  const tree = treeOf({ bytes, view }, start + 4, end);
  return {
    type,
    header: hex(bytes.subarray(start, start + 4)),
    attributes: type === NEW_ELEMENTS ? withoutId(tree) : tree,
  };
}

test('a batch is what nft sends for it, but for the numbers by which nft refers to sets of the same batch', () => {
  const ours = messagesIn(encodeBatch(BATCH));
  const theirs = vectors.nft.flatMap((text) =>
    messagesIn(new Uint8Array(Buffer.from(text, 'hex'))),
  );
  expect(ours.map(comparable)).toEqual(theirs.map(comparable));
});
