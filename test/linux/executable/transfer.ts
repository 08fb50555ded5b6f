/**
 * Both ends of a transfer over TCP, to be run in a netns:
 *     bun transfer.ts receive PORT            takes what comes, and prints the bytes a second of what came after the first moment
 *     bun transfer.ts send ADDRESS PORT       sends as fast as it may until it is ended
 */
const [mode = '', ...words] = process.argv.slice(2);

/** A bucket is full at first, and TCP has to find its pace. */
const WARM_UP_MS = 1000;
const MEASURED_MS = 2000;

function receive(port: number): void {
  let startedAt: number | undefined;
  let bytes = 0;
  let beganAt: number | undefined;
  Bun.listen({
    hostname: '::',
    port,
    socket: {
      data: (_socket, data) => {
        const now = performance.now();
        startedAt ??= now;
        if (now - startedAt < WARM_UP_MS) return;
        if (beganAt === undefined) {
          beganAt = now;
          return;
        }
        bytes += data.length;
        if (now - beganAt < MEASURED_MS) return;
        console.log(String(Math.round((bytes / (now - beganAt)) * 1000)));
        process.exit(0);
      },
    },
  });
  console.log('ready');
}

function send(address: string, port: number): void {
  const chunk = new Uint8Array(65_536);
  const fill = (socket: { write: (data: Uint8Array) => number }): void => {
    while (socket.write(chunk) === chunk.length);
  };
  void Bun.connect({
    hostname: address,
    port,
    socket: { open: fill, drain: fill, data: () => undefined },
  });
}

const [first = '', second = ''] = words;
if (mode === 'receive') receive(Number(first));
else send(first, Number(second));
