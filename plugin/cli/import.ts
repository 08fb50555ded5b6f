/** `cube-cni import`: records for pods that the reference plugins attached, so that they go on running under ours. */
import type { Command } from 'commander';
import { HOST_NETNS } from '../../model/host.ts';
import { formatPrefixedIp } from '../../model/prefix.ts';
import { formatKey } from '../attachment.ts';
import { usesOf } from '../call/usage.ts';
import { hostLocalOf } from '../ipam/host-local-folder.ts';
import { writeAll } from '../process/stdio.ts';
import { reservations } from '../reference/host-local.ts';
import { importAttachments } from '../reference/import.ts';
import { readResultCache } from '../reference/result-cache.ts';
import { CNI_PATH, networkRequest } from './configuration.ts';
import type { Opened } from './opened.ts';
import { formatTable } from './table.ts';

interface ImportFlags {
  readonly config: string;
  readonly results: string;
  readonly hostLocal?: string;
  readonly dryRun?: true;
  readonly json?: true;
}

/** Adds `import`. */
export function addImportCommand(program: Command, { open }: Opened): void {
  program
    .command('import')
    .description(
      'take over the pods that bridge and host-local attached; the kernel is not changed',
    )
    .requiredOption(
      '-c, --config <file>',
      'the network configuration that takes over; - reads standard input',
    )
    .option('--results <folder>', "libcni's cache of results", '/var/lib/cni/results')
    .option(
      '--host-local <folder>',
      "host-local's folder of the network (default: ipam.dataDir, or /var/lib/cni/networks, and the network's name)",
    )
    .option('--dry-run', 'show what would be taken over')
    .option('--json', 'print JSON')
    .action(async (flags: ImportFlags) => {
      const request = networkRequest(flags.config);
      const purpose = flags.dryRun ? 'look' : 'change';
      const context = await open(request, { cniPath: CNI_PATH }, purpose);
      const { entries, damaged } = readResultCache(flags.results);
      const found = reservations(flags.hostLocal ?? hostLocalOf(request));
      const observed = context.backend.observe({
        [HOST_NETNS]: { links: 'all', routes: 'none', sysctls: [], nftables: [] },
      });
      const imported = importAttachments({
        network: request.key.network,
        entries,
        reservations: found.reservations,
        observed,
        identity: context.identity,
        hasRecord: (key) => context.state.find(key) !== undefined,
      });
      if (!flags.dryRun)
        for (const attachment of imported.attachments)
          context.state.transact(() => {
            context.state.put(attachment, context.worker, usesOf(attachment));
            context.state.finish(attachment.key);
          });
      const problems = [
        ...imported.notImported.map(({ what, why }) => `${what}: ${why}`),
        ...damaged.map((each) => `${each}: it is no cached result`),
        ...found.notUnderstood.map((each) => `${each}: it is no reservation`),
      ];
      if (flags.json) {
        const value = { imported: imported.attachments, problems, dryRun: flags.dryRun === true };
        writeAll(1, `${JSON.stringify(value, null, 2)}\n`);
        return;
      }
      const rows = imported.attachments.map((attachment) => [
        formatKey(attachment.key),
        attachment.addresses.map(formatPrefixedIp).join(', '),
        attachment.hostIfname,
      ]);
      if (rows.length > 0)
        writeAll(1, formatTable([['ATTACHMENT', 'ADDRESSES', 'HOST LINK'], ...rows]));
      for (const problem of problems) writeAll(2, `not imported: ${problem}\n`);
      const done = flags.dryRun ? 'would be taken over' : 'taken over';
      writeAll(1, `${rows.length} ${rows.length === 1 ? 'attachment' : 'attachments'} ${done}\n`);
    });
}
