/**
 * Programs for both ends of a connection, to be run in a netns:
 *     bun talk.ts serve NAME PORT             says NAME and whom it sees, to everybody, over TCP and UDP
 *     bun talk.ts ask tcp|udp ADDRESS PORT [FROM]
 *                                             prints what it is told, at port FROM; exit status 1 when that is nothing
 */
const [mode = '', ...words] = process.argv.slice(2);

/** How long silence is listened to: most who are not answered are refused, and at once. */
const SILENCE_MS = 3000;

async function serve(name: string, port: number): Promise<void> {
  Bun.listen({
    hostname: '::',
    port,
    socket: {
      open: (socket) => {
        socket.write(`${name} ${socket.remoteAddress.replace('::ffff:', '')}`);
        socket.end();
      },
      data: () => undefined,
    },
  });
  // One socket for both families.
  await Bun.udpSocket({
    hostname: '::',
    port,
    socket: {
      data: (socket, _data, from, address) => {
        socket.send(`${name} ${address.replace('::ffff:', '')}`, from, address);
      },
    },
  });
  console.log('ready');
}

async function ask(protocol: string, address: string, port: number, from: number): Promise<void> {
  const answer = await new Promise<string | undefined>((resolve) => {
    setTimeout(() => resolve(undefined), SILENCE_MS);
    const told = (_socket: unknown, data: Buffer): void => resolve(data.toString());
    if (protocol === 'tcp')
      Bun.connect({
        hostname: address,
        port,
        socket: {
          data: told,
          error: () => resolve(undefined),
          connectError: () => resolve(undefined),
        },
      }).catch(() => resolve(undefined));
    else
      Bun.udpSocket({
        hostname: address.includes(':') ? '::' : '0.0.0.0',
        port: from,
        connect: { hostname: address, port },
        socket: { data: told, error: () => resolve(undefined) },
      }).then(
        (socket) => socket.send('who are you'),
        () => resolve(undefined),
      );
  });
  if (answer === undefined) process.exit(1);
  console.log(answer);
  process.exit(0);
}

const [first = '', second = '', third = '', fourth = '0'] = words;
if (mode === 'serve') await serve(first, Number(second));
else await ask(first, second, Number(third), Number(fourth));
