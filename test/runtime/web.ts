/** A command and its arguments. */
type Command = readonly [string, ...string[]];

/** What a container runs to serve the file `hostname` of a folder, at all of its addresses. */
export function serveFolder(folder: string, port: number): Command {
  return ['busybox', 'httpd', '-f', '-p', `${port}`, '-h', folder];
}

/** A command that prints the `hostname` that is served at an address; its status is not 0 when there is no answer. */
export function askHostname(address: string, port: number): Command {
  const host = address.includes(':') ? `[${address}]` : address;
  // Not wget's own -T: it crashes in Debian 12's busybox-static.
  const wget = ['wget', '-q', '-O-', `http://${host}:${port}/hostname`];
  return ['busybox', 'timeout', '5', 'busybox', ...wget];
}
