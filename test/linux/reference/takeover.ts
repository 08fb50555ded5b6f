/** Imports in the netns that it is started in, then shows or removes what it imported; question and answer are JSON. */
import { makeLinuxBackend } from '../../../backends/linux/linux.ts';
import { HOST_NETNS } from '../../../model/host.ts';
import { findings } from '../../../plugin/call/check.ts';
import type { CallContext } from '../../../plugin/call/context.ts';
import { del } from '../../../plugin/call/del.ts';
import { linuxContext } from '../../../plugin/process/context.ts';
import { type Departed, depart, departureOf } from '../../../plugin/reference/departure.ts';
import { reservations } from '../../../plugin/reference/host-local.ts';
import { type Import, importAttachments } from '../../../plugin/reference/import.ts';
import { loadPrograms } from '../../../plugin/reference/programs.ts';
import type { CachedResult } from '../../../plugin/reference/result-cache.ts';

/** What a test asks for. */
export interface TakeoverQuestion {
  readonly network: string;
  readonly entries: readonly CachedResult[];
  readonly hostLocal: string;
  readonly dataDir: string;
  /** DEL of these containers after the import. */
  readonly del: readonly string[];
}

/** What it answers. */
export interface TakeoverAnswer extends Import {
  /** What CHECK says of each attachment. */
  readonly findings: readonly string[];
  readonly departed: readonly Departed[];
}

const question: TakeoverQuestion = JSON.parse(await Bun.stdin.text());
const { network, entries, hostLocal, dataDir } = question;
const context = await linuxContext(dataDir, () => undefined);
const imported = importAttachments({
  network,
  entries,
  reservations: reservations(hostLocal).reservations,
  observed: makeLinuxBackend().observe({
    [HOST_NETNS]: { links: 'all', routes: 'none', sysctls: [], nftables: [] },
  }),
  identity: context.identity,
  hasRecord: (key) => context.state.find(key) !== undefined,
});
for (const attachment of imported.attachments) {
  context.state.put(attachment, context.worker, [`bridge ${attachment.bridge}`]);
  context.state.finish(attachment.key);
}
const records = context.state.list().map(({ attachment }) => attachment);
const found = records.flatMap(({ key }) => findings(context, key)).map(({ text }) => text);
const run = await loadPrograms();
const departed: Departed[] = [];
const departing: CallContext = {
  ...context,
  depart: (attachment) =>
    departed.push(depart({ ...context, run }, departureOf(attachment, hostLocal))),
};
for (const { key } of records) if (question.del.includes(key.containerId)) del(departing, key);
console.log(JSON.stringify({ ...imported, findings: found, departed } satisfies TakeoverAnswer));
