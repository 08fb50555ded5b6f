/**
 * Messages about VLANs, beside those of iproute2 6.1 for the same commands (recorded with strace) and the answers of Debian's
 * Linux 6.1: the machine that records the other vectors has no VLAN filtering.
 */
import { describe, expect, test } from 'vitest';
import { type Reader, eachAttribute, makeReader } from '../../../backends/linux/attribute.ts';
import { encodeLinkSet } from '../../../backends/linux/link-message.ts';
import { type Message, eachMessage } from '../../../backends/linux/message.ts';
import { decodeVlans, encodeVlanAdd, encodeVlanDel } from '../../../backends/linux/vlan-message.ts';
import { parseIfname } from '../../../model/ifname.ts';
import { vlan } from '../../../model/vlan.ts';

const PORT = 4;
const BRIDGE = 2;

function onlyMessage(bytes: Uint8Array): Message {
  const messages: Message[] = [];
  eachMessage(makeReader(bytes), bytes.length, (message) => messages.push(message));
  expect(messages).toHaveLength(1);
  return messages[0] as Message;
}

/** Attributes as pairs of type and value, the inner ones of those types that hold any as such pairs again. */
type Tree = readonly (readonly [type: number, value: string | Tree])[];

function treeOf(reader: Reader, start: number, end: number, nests: readonly number[]): Tree {
  const found: [number, string | Tree][] = [];
  const [nest, ...inner] = nests;
  eachAttribute(reader, start, end, (type, from, to) => {
    const bytes = Buffer.from(reader.bytes.subarray(from, to)).toString('hex');
    found.push([type, type === nest ? treeOf(reader, from, to, inner) : bytes]);
  });
  return found;
}

/** All but the sequence number, and the mark of nests, which iproute2 does not set. */
function comparable(bytes: Uint8Array, nests: readonly number[]): unknown {
  const message = onlyMessage(bytes);
  const header = Buffer.from(message.bytes.subarray(message.start, message.start + 16));
  return {
    type: message.type,
    flags: message.flags,
    header: header.toString('hex'),
    attributes: treeOf(message, message.start + 16, message.end, nests),
  };
}

function fromHex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replaceAll(' ', ''), 'hex'));
}

const IFLA_AF_SPEC = 26;

describe('messages about VLANs are what iproute2 sends', () => {
  test.each([
    [
      'bridge vlan add dev v0 vid 100 pvid untagged',
      encodeVlanAdd(PORT, false, vlan(100, { pvid: true, untagged: true })),
      '2c000000130005005854086b00000000 07000000040000000000000000000000 0c001a000800020006006400',
    ],
    [
      'bridge vlan add dev v0 vid 200-300',
      encodeVlanAdd(PORT, false, { first: 200, last: 300, pvid: false, untagged: false }),
      '34000000130005005954086b00000000 07000000040000000000000000000000 14001a00080002000800c80008000200 10002c01',
    ],
    [
      'bridge vlan add dev br0 vid 7 self',
      encodeVlanAdd(BRIDGE, true, vlan(7)),
      '34000000130005005a54086b00000000 07000000020000000000000000000000 14001a00060000000200000008000200 00000700',
    ],
    [
      'bridge vlan del dev v0 vid 250-260',
      encodeVlanDel(PORT, false, 250, 260),
      '34000000110005005c54086b00000000 07000000040000000000000000000000 14001a00080002000800fa0008000200 10000401',
    ],
  ])('%s', (_command, ours, theirs) => {
    expect(comparable(ours, [IFLA_AF_SPEC])).toEqual(comparable(fromHex(theirs), [IFLA_AF_SPEC]));
  });

  test('ip link set br0 type bridge vlan_filtering 1', () => {
    const theirs =
      '3c000000100005005c54086b00000000 00000000020000000000000000000000 1c0012000a0001006272696467650000 0c0002000500070001000000';
    const ours = encodeLinkSet(parseIfname('br0'), { vlanFiltering: true });
    const [LINKINFO, INFO_DATA] = [18, 2];
    const parts = (bytes: Uint8Array): unknown => {
      const { attributes } = comparable(bytes, [LINKINFO, INFO_DATA]) as { attributes: Tree };
      const info = attributes.find(([type]) => type === LINKINFO)?.[1] as Tree;
      return info.find(([type]) => type === INFO_DATA);
    };
    // Theirs has the link's number, ours its name; and the kind's text may end in a NUL byte.
    expect(parts(ours)).toEqual(parts(fromHex(theirs)));
  });
});

describe('answers about VLANs', () => {
  test.each([
    [
      'of a bridge',
      '5000000070000200020000008300000007000000020000001c0001800800010006000100050003000300000005000600010000001c000180080001000000070005000300030000000500060001000000',
      [vlan(1, { pvid: true, untagged: true }), vlan(7)],
    ],
    [
      'of a port',
      '9800000070000200030000008300000007000000040000001c0001800800010004000100050003000300000005000600010000001c00018008000100060064000500030003000000050006000100000024000180080001000000c80006000200f900000005000300030000000500060001000000240001800800010000000501060002002c01000005000300030000000500060001000000',
      [
        vlan(1, { untagged: true }),
        vlan(100, { pvid: true, untagged: true }),
        { first: 200, last: 249, pvid: false, untagged: false },
        { first: 261, last: 300, pvid: false, untagged: false },
      ],
    ],
  ])('%s', (_what, text, expected) => {
    const bytes = fromHex(text);
    expect(decodeVlans(onlyMessage(bytes))).toEqual(expected);
    // Damaged in any place, it is read without a crash.
    for (let at = 16; at < bytes.length; at += 1) {
      const damaged = bytes.slice();
      damaged[at] = 0xff;
      eachMessage(makeReader(damaged), damaged.length, (message) => void decodeVlans(message));
    }
  });
});
