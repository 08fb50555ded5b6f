/** Somebody in each netns of a host who answers everybody, and asks others on demand; all of them in this process. */
import type { NetnsName } from '../../model/host.ts';
import { type Ip, familyOf } from '../../model/ip.ts';
import {
  type Protocol,
  type Received,
  type Socket,
  type Told,
  inNetns,
  openSocket,
  pattern,
  ready,
} from './sockets.ts';

/** As ping has it. */
export const DEFAULT_PAYLOAD_BYTES = 56;

/** What one netns asks another. */
export interface Question {
  readonly netns: NetnsName;
  readonly protocol: Protocol;
  readonly destination: Ip;
  /** 0 for an echo. */
  readonly port: number;
  /** As the kernel has it where it is not said. */
  readonly ttl?: number;
  /** Of ICMP or UDP; `DEFAULT_PAYLOAD_BYTES` where it is not said. */
  readonly payloadBytes?: number;
  /** True where it is not said. */
  readonly dontFragment?: boolean;
}

/** What became of a question. */
export interface Answer {
  /** From which address the other has seen it; '' where it does not say, as of an echo, or of a connection on which nothing came after its SYN and ACK; null: there was no answer. */
  readonly as: string | null;
  /** Of a datagram: the TTL with which it came to the other. */
  readonly ttl?: number;
  /** Of a connection: it was refused, by a segment or an ICMP error that means it. */
  readonly isRefused?: boolean;
  /** The ICMP error that the sender was told first; of a datagram or an echo. */
  readonly told?: Told;
}

/** Nothing came, in the time that there was. */
export const NO_ANSWER: Answer = { as: null };

/** A question on its way. */
interface Asking {
  readonly question: Question;
  readonly socket: Socket;
  answer: Answer | undefined;
}

const ECHO_REQUEST = { 4: 8, 6: 128 } as const;

/** An echo request, whose id and checksum the kernel sets (net/ipv4/ping.c). */
function echo(family: 4 | 6, payloadBytes: number): Uint8Array {
  const bytes = new Uint8Array(8 + payloadBytes);
  bytes.set(pattern(payloadBytes), 8);
  bytes[0] = ECHO_REQUEST[family];
  return bytes;
}

function send(question: Question): Asking {
  const { protocol, destination, port, ttl, dontFragment = true } = question;
  const { payloadBytes = DEFAULT_PAYLOAD_BYTES } = question;
  const family = familyOf(destination);
  const socket = openSocket(protocol, family);
  socket.forAsking(dontFragment, ttl);
  socket.connect(destination, port);
  if (protocol === 'udp') socket.send(pattern(payloadBytes));
  else if (protocol === 'icmp') socket.send(echo(family, payloadBytes));
  return { question, socket, answer: undefined };
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** What a question has come to; undefined: nothing yet. */
function heard({ question, socket }: Asking): Answer | undefined {
  // Before anything is received, which takes the error away.
  const isRefused = question.protocol === 'tcp' && socket.isRefused();
  const received = socket.receive();
  if (question.protocol === 'tcp')
    return { as: received?.length ? textOf(received) : null, isRefused };
  if (received !== undefined) {
    if (question.protocol === 'icmp') return { as: '' };
    const [as = '', ttl] = textOf(received).split(' ');
    return { as, ttl: Number(ttl) };
  }
  const told = socket.told();
  return told && { as: null, told };
}

function answerAll(socket: Socket): void {
  for (;;) {
    const received: Received | undefined = socket.receiveFrom();
    if (received === undefined) return;
    socket.answer(received, `${received.from} ${received.ttl}`);
  }
}

const PAUSE_MS = 1;

/** Whoever answers over UDP and TCP in some netns, on one port. */
export class Stations {
  readonly #udp: readonly Socket[];
  readonly #tcp: readonly Socket[];

  constructor(netns: readonly NetnsName[], port: number) {
    const listen = (protocol: 'udp' | 'tcp'): Socket[] =>
      netns.flatMap((name) =>
        inNetns(name, () =>
          ([4, 6] as const).map((family) => {
            const socket = openSocket(protocol, family);
            socket.forAnswering(protocol, port);
            return socket;
          }),
        ),
      );
    this.#udp = listen('udp');
    this.#tcp = listen('tcp');
  }

  /** What becomes of questions that are all asked at once, in so much time. */
  async ask(questions: readonly Question[], waitMs: number): Promise<readonly Answer[]> {
    const askings = questions.map((each) => inNetns(each.netns, () => send(each)));
    try {
      for (const end = performance.now() + waitMs; performance.now() < end;) {
        this.#serve();
        const open = askings.filter(({ answer }) => answer === undefined);
        if (open.length === 0) break;
        const at = ready(open.map(({ socket }) => socket));
        for (const each of open) if (at.has(each.socket)) each.answer = heard(each);
        await Bun.sleep(PAUSE_MS);
      }
      return askings.map(({ question, socket, answer }) => {
        const isSilent = question.protocol === 'tcp' && answer === undefined;
        return isSilent && socket.isConnected() ? { as: '' } : (answer ?? NO_ANSWER);
      });
    } finally {
      for (const { socket } of askings) socket.close();
    }
  }

  #serve(): void {
    const at = ready([...this.#udp, ...this.#tcp]);
    for (const socket of this.#udp) if (at.has(socket)) answerAll(socket);
    for (const socket of this.#tcp) if (at.has(socket)) socket.greet();
  }

  close(): void {
    for (const socket of [...this.#udp, ...this.#tcp]) socket.close();
  }
}
