/** Dumps of what changes while it is read: begun anew, never put together from two states. */
import { dlopen, ptr } from 'bun:ffi';
import { closeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { expectAnswer } from '../../backends/linux/answer.ts';
import { makeWriter, reserve, written } from '../../backends/linux/attribute.ts';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import {
  type Message,
  NLMSG_DONE,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  closeMessage,
  encodeMessage,
  openMessage,
} from '../../backends/linux/message.ts';
import { NetlinkSocket } from '../../backends/linux/socket.ts';
import { requirement } from '../requirements.ts';

const AF_UNIX = 1;
/** Bounds between messages are kept, as netlink does, and there may be many of them. */
const SOCK_SEQPACKET = 5;
const NLM_F_MULTI = 2;
const TRIES = 20;
const OBJECT = 16;

/** The kernel's side of a conversation: what it answers is queued before it is asked. */
class Script {
  readonly #libc = dlopen('libc.so.6', {
    socketpair: { args: ['i32', 'i32', 'i32', 'ptr'], returns: 'i32' },
    send: { args: ['i32', 'ptr', 'usize', 'i32'], returns: 'i32' },
  }).symbols;
  readonly #fds = new Int32Array(2);
  readonly socket: NetlinkSocket;
  #sequence = 1;

  constructor() {
    if (this.#libc.socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ptr(this.#fds)) !== 0)
      throw new Error('no pair of sockets');
    this.socket = new NetlinkSocket(this.#fds[0] as number);
  }

  /** Answers the next try with these numbers, each in a receive of its own; the kernel marks one of them as torn, or none. */
  answer(numbers: readonly number[], torn: number | 'end' | 'none'): void {
    const parts = [...numbers, 'end' as const];
    for (const [index, part] of parts.entries()) {
      const isTorn = torn === (part === 'end' ? 'end' : index);
      const writer = makeWriter(64);
      const type = part === 'end' ? NLMSG_DONE : OBJECT;
      const flags = NLM_F_MULTI | (isTorn ? NLM_F_DUMP_INTR : 0);
      const at = openMessage(writer, type, flags, 0);
      writer.view.setUint32(at + 8, this.#sequence, true);
      writer.view.setInt32(reserve(writer, 4), part === 'end' ? 0 : part, true);
      closeMessage(writer, at);
      const bytes = written(writer);
      if (this.#libc.send(this.#fds[1] as number, bytes, bytes.length, 0) !== bytes.length)
        throw new Error('an answer does not fit the queue');
    }
    this.#sequence += 1;
  }

  close(): void {
    this.socket.close();
    closeSync(this.#fds[1] as number);
  }
}

const QUESTION = encodeMessage(OBJECT, NLM_F_DUMP, 0, () => undefined);
const decode = ({ view, start }: Message): number => view.getInt32(start, true);

describe.skipIf(requirement('linux'))('an interrupted dump', () => {
  let script: Script;
  beforeEach(() => {
    script = new Script();
  });
  afterEach(() => script.close());

  it.each([0, 1, 'end'] as const)('is begun anew, whichever part is torn (%s)', (torn) => {
    script.answer([1, 2], torn);
    script.answer([3, 4, 5], 'none');
    expect(script.socket.dump(QUESTION, decode)).toEqual([3, 4, 5]);
  });

  it('counts when it comes whole at the last try', () => {
    for (let tries = 1; tries < TRIES; tries += 1) script.answer([tries], 'end');
    script.answer([7], 'none');
    expect(script.socket.dump(QUESTION, decode)).toEqual([7]);
  });

  it('is an error that says what was read where it is torn each time', () => {
    for (let tries = 1; tries <= TRIES; tries += 1) script.answer([tries], 0);
    script.answer([7], 'none');
    const answer = script.socket.dump(QUESTION, decode);
    expect(() => expectAnswer(answer, 'node', 'the links')).toThrow(
      'Cannot read the links in netns "node": EINTR, "it changed each of the 20 times that it was read: the host changes too fast"',
    );
  });
});

const NETNS = `cube-restless-${process.pid}`;
/** So many links fill several receives. */
const RESTING = 200;
const READS = 100;

function run(command: string, input = ''): void {
  const { stderr, exitCode } = Bun.spawnSync(command.split(' '), { stdin: Buffer.from(input) });
  if (exitCode !== 0) throw new Error(`${command}: ${stderr.toString()}`);
}

/** Makes and removes a veth with an address and a route, again and again. */
const CHURN = `while :; do
  ip link add churn-a type veth peer name churn-b
  ip address add 10.9.0.1/24 dev churn-a
  ip link set churn-a up
  ip route add 10.99.0.0/16 dev churn-a
  ip link del churn-a
done`;

/** Both ends of the veth. */
const PAIRS = ['churn-a churn-b with a MAC address', 'churn-b churn-a with a MAC address'];

describe.skipIf(requirement('root', 'iproute2'))('a netns that never rests', () => {
  let churn: Bun.Subprocess;
  beforeEach(() => {
    run(`ip netns add ${NETNS}`);
    const names = Array.from({ length: RESTING }, (_each, index) => `rest${index}`);
    run(`ip -n ${NETNS} -batch -`, names.map((name) => `link add ${name} type bridge\n`).join(''));
    churn = Bun.spawn(['ip', 'netns', 'exec', NETNS, 'sh', '-c', CHURN], { stderr: 'ignore' });
  });
  afterEach(async () => {
    churn.kill();
    await churn.exited;
    run(`ip netns del ${NETNS}`);
  });

  it('is read with all that stays in it, and nothing by half', () => {
    const backend = makeLinuxBackend();
    let met = 0;
    for (let reads = 0; reads < READS; reads += 1) {
      const scope = { links: 'all', routes: 'all', sysctls: [], nftables: [] } as const;
      const { links, routes } = backend.observe({ [NETNS]: scope }).netns[NETNS] ?? {};
      const names = Object.keys(links ?? {});
      expect(names.filter((name) => name.startsWith('rest'))).toHaveLength(RESTING);
      const ends = Object.values(links ?? {}).filter(({ ifname }) => ifname.startsWith('churn'));
      if (ends.length > 0) met += 1;
      // Both come at once, and go at once.
      const pairs = ends.map(({ ifname, mac, ...end }) => {
        const peer = end.kind === 'veth' ? end.peer?.ifname : undefined;
        return `${ifname} ${peer} ${mac === null ? 'without' : 'with'} a MAC address`;
      });
      expect(new Set(pairs)).toEqual(new Set(ends.length === 0 ? [] : PAIRS));
      const devices = (routes ?? []).flatMap(({ device }) => device ?? []);
      expect(devices.filter((device) => !names.includes(device))).toEqual([]);
    }
    backend.close();
    expect(met).toBeGreaterThan(0);
    expect(met).toBeLessThan(READS);
  });
});
