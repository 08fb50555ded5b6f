/** Exchanges on one netlink socket: each ends with its own last answer, whatever those before it have left in the queue. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Kernel } from '../../backends/linux/kernel.ts';
import {
  decodeIfindex,
  encodeLinkDel,
  encodeLinkDump,
  encodeLinkGet,
} from '../../backends/linux/link-message.ts';
import { NLM_F_ACK } from '../../backends/linux/message.ts';
import { addNetns, delNetns } from '../../backends/linux/netns.ts';
import {
  decodePolicyRule,
  encodePolicyRuleDump,
} from '../../backends/linux/policy-rule-message.ts';
import { NetlinkSocket, isFault } from '../../backends/linux/socket.ts';
import type { Ifname } from '../../model/ifname.ts';
import { requirement } from '../requirements.ts';

const NETNS = 'cube-exchanges';
const NONE = 'none' as Ifname;
const LO = { ifindex: 1 };

/** The question with an ACK behind its answer, which nobody waits for. */
function withAck(question: Uint8Array): Uint8Array {
  const bytes = question.slice();
  bytes[6] = (bytes[6] ?? 0) | NLM_F_ACK;
  return bytes;
}

interface Exchange {
  readonly go: (socket: NetlinkSocket) => unknown;
  readonly answer: unknown;
}

/** What can be asked of a netns that has a loopback and nothing else, and what there is to say. */
const EXCHANGES: Readonly<Record<string, Exchange>> = {
  'a link': { go: (socket) => socket.ask(encodeLinkGet(1), decodeIfindex), answer: LO },
  'a link, and an ACK': {
    go: (socket) => socket.ask(withAck(encodeLinkGet(1)), decodeIfindex),
    answer: LO,
  },
  'a link that is not there': {
    go: (socket) => socket.ask(encodeLinkGet(NONE), decodeIfindex),
    answer: { errno: 'ENODEV', text: '' },
  },
  'all links': { go: (socket) => socket.dump(encodeLinkDump(), decodeIfindex), answer: [LO] },
  'what no decoder knows': {
    go: (socket) => socket.ask(encodeLinkGet(1), () => undefined),
    answer: { errno: 'EIO', text: 'the kernel did not answer' },
  },
  'all rules': {
    go: (socket) => {
      const rules = socket.dump(encodePolicyRuleDump(), decodePolicyRule);
      return isFault(rules) ? rules : rules.map(({ family }) => family);
    },
    answer: [4, 4, 4, 6, 6],
  },
  'a refused change': {
    go: (socket) => socket.request(encodeLinkDel(NONE)),
    answer: { errno: 'ENODEV', text: '' },
  },
  'a refused batch': {
    go: (socket) => socket.batch(encodeLinkDel(NONE)),
    answer: { fault: { errno: 'ENODEV', text: '' }, sequence: 0 },
  },
};

describe.skipIf(requirement('root'))('a netlink socket', () => {
  beforeAll(() => {
    const fault = addNetns(NETNS);
    if (fault) throw new Error(fault.errno);
  });
  afterAll(() => {
    delNetns(NETNS);
  });

  it('gives every question its own answer', () => {
    const kernel = new Kernel();
    const netns = kernel.netns(NETNS);
    const socket = 'errno' in netns ? netns : netns.route();
    if (!(socket instanceof NetlinkSocket)) throw new Error(socket.errno);
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...Object.keys(EXCHANGES))), (names) => {
        const answers = names.map((name) => EXCHANGES[name]?.go(socket));
        expect(answers).toEqual(names.map((name) => EXCHANGES[name]?.answer));
      }),
    );
    kernel.close();
  });
});
