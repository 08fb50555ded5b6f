/** The executable: a CNI plugin when CNI_COMMAND is set, else a command line. Only here is the environment read. */
import { aboutText } from './about.ts';

async function main(): Promise<number> {
  const { env, argv, argv0, platform } = process;
  const args = argv.slice(2);
  const calledAs = argv0.slice(argv0.lastIndexOf('/') + 1);
  if ((env['CNI_COMMAND'] ?? '') !== '') {
    // What has been given to nobody can be read by nobody: state and log are for root alone.
    process.umask(0o077);
    const { cniCall } = await import('./process/cni-call.ts');
    const status = await cniCall(
      {
        CNI_COMMAND: env['CNI_COMMAND'],
        CNI_CONTAINERID: env['CNI_CONTAINERID'],
        CNI_NETNS: env['CNI_NETNS'],
        CNI_IFNAME: env['CNI_IFNAME'],
        CNI_ARGS: env['CNI_ARGS'],
        CNI_PATH: env['CNI_PATH'],
      },
      args,
      {
        calledAs,
        variables: env,
        mayBeOwnNetns: /^(true|1)$/i.test(env['CNI_NETNS_OVERRIDE'] ?? ''),
      },
    );
    if (platform === 'linux') {
      const { exitNow } = await import('../backends/linux/libc.ts');
      exitNow(status);
    }
    return status;
  }
  const { writeAll } = await import('./process/stdio.ts');
  if (args.length === 0) {
    writeAll(2, aboutText(calledAs));
    return 0;
  }
  process.umask(0o077);
  const { commandLine } = await import('./cli/command-line.ts');
  return commandLine(args, {
    noColor: env['NO_COLOR'],
    term: env['TERM'],
    variables: env,
  });
}

try {
  process.exit(await main());
} catch (error) {
  // One line: a stack trace helps nobody who runs a container.
  process.stderr.write(`cube-cni: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
}
