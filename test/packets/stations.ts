/** Somebody in each netns of a host who answers everybody, and asks others on demand; all of them in this process. */
import type { NetnsName } from '../../model/host.ts';
import { type Ip, familyOf } from '../../model/ip.ts';
import {
  type Protocol,
  type Received,
  type Socket,
  type Told,
  Watch,
  inNetns,
  openSocket,
  pattern,
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

/** A socket for each, all of a netns opened in one visit to it. */
function socketsFor(questions: readonly Question[]): readonly Socket[] {
  const sockets = new Map<Question, Socket>();
  for (const [netns, asked] of Map.groupBy(questions, (each) => each.netns))
    inNetns(netns, () => {
      for (const each of asked)
        sockets.set(each, openSocket(each.protocol, familyOf(each.destination)));
    });
  return questions.map((each) => sockets.get(each) as Socket);
}

function send(question: Question, socket: Socket): Asking {
  const { protocol, destination, port, ttl, dontFragment = true } = question;
  const { payloadBytes = DEFAULT_PAYLOAD_BYTES } = question;
  socket.forAsking(dontFragment, ttl);
  socket.connect(destination, port);
  if (protocol === 'udp') socket.send(pattern(payloadBytes));
  else if (protocol === 'icmp') socket.send(echo(socket.family, payloadBytes));
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

/** Between two looks; they become longer, since what comes mostly comes at once. */
const PAUSES_MS = [1, 1, 2, 4, 8] as const;
const LONG_PAUSE_MS = 15;
/** This process may have been held up by others since it asked. */
const MIN_LOOKS = 4;
/** After so long nothing is on its way any more, not even to a neighbour who is asked for in vain. */
const QUIET_MS = 100;

/** Whoever answers over UDP and TCP in some netns, on one port. */
export class Stations {
  readonly #udp: readonly Socket[];
  readonly #tcp: readonly Socket[];
  readonly #watch: Watch;

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
    this.#watch = new Watch([...this.#udp, ...this.#tcp]);
  }

  /** What becomes of questions that are all asked at once, in so much time; tells when all has come that comes in time. */
  async ask(
    questions: readonly Question[],
    waitMs: number,
    onQuiet: () => void,
  ): Promise<readonly Answer[]> {
    const sockets = socketsFor(questions);
    try {
      const askings = questions.map((each, at) => send(each, sockets[at] as Socket));
      await this.#hear(askings, Math.min(waitMs, QUIET_MS));
      onQuiet();
      await this.#hear(askings, waitMs - QUIET_MS);
      return askings.map(({ question, socket, answer }) => {
        const isSilent = question.protocol === 'tcp' && answer === undefined;
        return isSilent && socket.isConnected() ? { as: '' } : (answer ?? NO_ANSWER);
      });
    } finally {
      for (const socket of sockets) socket.close();
    }
  }

  async #hear(askings: readonly Asking[], waitMs: number): Promise<void> {
    const end = performance.now() + waitMs;
    const waiting = askings.filter(({ answer }) => answer === undefined);
    const watch = new Watch(waiting.map(({ socket }) => socket));
    let open = waiting.length;
    for (let looks = 0; open > 0 && (looks < MIN_LOOKS || performance.now() < end); looks += 1) {
      this.#serve();
      for (const at of watch.ready()) {
        const asking = waiting[at] as Asking;
        asking.answer = heard(asking);
        if (asking.answer === undefined) continue;
        watch.leave(at);
        open -= 1;
      }
      if (open > 0) await Bun.sleep(PAUSES_MS[looks] ?? LONG_PAUSE_MS);
    }
  }

  #serve(): void {
    for (const at of this.#watch.ready()) {
      const udp = this.#udp[at];
      if (udp) answerAll(udp);
      else this.#tcp[at - this.#udp.length]?.greet();
    }
  }

  close(): void {
    for (const socket of [...this.#udp, ...this.#tcp]) socket.close();
  }
}
