/**
 * Runs in a netns: answers everybody over TCP and UDP with the address that it sees, and asks others on demand. A line
 * of JSON on standard input is a list of questions, a line on standard output the list of what became of them.
 */
import { createSocket } from 'node:dgram';
import { createConnection, createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { createInterface } from 'node:readline';

/** What one netns asks another. */
export interface Question {
  readonly protocol: 'icmp' | 'udp' | 'tcp';
  readonly destination: string;
  /** 0 for an echo. */
  readonly port: number;
}

/** From which address the other has seen it, '' for an echo; null: there was no answer. */
export type Reached = string | null;

const [listenPort = 0, waitMs = 0] = process.argv.slice(2).map(Number);

function plain(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:/, '').replace(/%.*/, '');
}

/** TCP for both families. */
function listenTcp(host: '0.0.0.0' | '::'): Promise<void> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end(plain(socket.remoteAddress));
  });
  return new Promise((resolve) => {
    server.listen({ port: listenPort, host, ipv6Only: host === '::' }, resolve);
  });
}

/** UDP on one address: of a socket for all of them an answer would come from whichever address its route has. */
function listenUdp(host: string): Promise<void> {
  const udp = createSocket(host.includes(':') ? 'udp6' : 'udp4');
  udp.on('message', (_data, { address, port }) => udp.send(plain(address), port, address));
  udp.on('error', () => undefined);
  return new Promise((resolve) => {
    udp.bind(listenPort, host, resolve);
  });
}

function ownAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((link) => link ?? [])
    .map(({ address }) => address)
    .filter((address) => !address.startsWith('fe80'));
}

function askTcp({ destination, port }: Question): Promise<Reached> {
  return new Promise((resolve) => {
    let seen = '';
    const socket = createConnection({ host: destination, port });
    const end = (answer: Reached): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => end(null), waitMs);
    socket.on('data', (data) => {
      seen += data.toString();
    });
    socket.on('end', () => end(seen));
    socket.on('error', () => end(null));
  });
}

function askUdp({ destination, port }: Question): Promise<Reached> {
  return new Promise((resolve) => {
    const socket = createSocket(destination.includes(':') ? 'udp6' : 'udp4');
    const end = (answer: Reached): void => {
      clearTimeout(timer);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(() => end(null), waitMs);
    socket.on('error', () => end(null));
    socket.on('message', (data) => end(data.toString()));
    // Only what comes from whom was asked is an answer.
    socket.connect(port, destination, () => {
      // Called also when there was no route to connect by.
      try {
        socket.send('?');
      } catch {
        end(null);
      }
    });
  });
}

async function askEcho({ destination }: Question): Promise<Reached> {
  const family = destination.includes(':') ? '-6' : '-4';
  const seconds = `${waitMs / 1000}`;
  const ping = Bun.spawn(
    ['busybox', 'timeout', seconds, 'busybox', 'ping', family, '-c', '1', destination],
    {
      stdout: 'ignore',
      stderr: 'ignore',
    },
  );
  return (await ping.exited) === 0 ? '' : null;
}

const ASK = { icmp: askEcho, udp: askUdp, tcp: askTcp } as const;

await Promise.all([listenTcp('0.0.0.0'), listenTcp('::'), ...ownAddresses().map(listenUdp)]);
process.stdout.write('[]\n');
for await (const line of createInterface({ input: process.stdin })) {
  const questions = JSON.parse(line) as Question[];
  const answers = await Promise.all(questions.map((each) => ASK[each.protocol](each)));
  process.stdout.write(`${JSON.stringify(answers)}\n`);
}
process.exit(0);
