/** `cube-cni ipam`: who has which address, and giving back what nobody has any more. */
import type { Command } from 'commander';
import { familyOf, ipBits, ipFromBits, parseIp } from '../../model/ip.ts';
import { formatKey } from '../attachment.ts';
import type { CallContext } from '../call/context.ts';
import { del } from '../call/del.ts';
import { parseConfig } from '../cni/config.ts';
import { CNI_ERROR, CniError } from '../cni/error.ts';
import type { Request } from '../cni/request.ts';
import { hostLocalOf } from '../ipam/host-local-folder.ts';
import { capacityOf, rangeSetsOf } from '../ipam/ranges.ts';
import { writeAll } from '../process/stdio.ts';
import { CNI_PATH, networkRequest } from './configuration.ts';
import type { Opened } from './opened.ts';
import { formatTable } from './table.ts';

interface AddressRow {
  readonly ip: string;
  readonly state: 'used' | 'pending' | 'host-local' | 'released';
  readonly container: string;
  readonly ifname: string;
  readonly since: string;
}

interface SetRow {
  readonly set: number;
  readonly ranges: readonly string[];
  readonly size: string;
  readonly used: number;
}

function addressRows(context: CallContext, request: Request): AddressRow[] {
  const { network } = request.key;
  const used = context.state
    .list()
    .filter(({ attachment }) => attachment.key.network === network)
    .flatMap(({ attachment, state }) =>
      attachment.addresses.map(({ ip }): AddressRow => ({
        ip,
        state: state === 'pending' ? 'pending' : 'used',
        container: attachment.key.containerId,
        ifname: attachment.key.ifname,
        since: '',
      })),
    );
  const known = new Set(used.map(({ ip }) => ip));
  const elsewhere = context
    .reservedByHostLocal(hostLocalOf(request))
    .filter((ip) => !known.has(ip))
    .map((ip): AddressRow => ({ ip, state: 'host-local', container: '', ifname: '', since: '' }));
  const released = context.state
    .released(network)
    .filter(({ ip }) => !known.has(ip))
    .map(({ ip, releasedAtMs }): AddressRow => ({
      ip,
      state: 'released',
      container: '',
      ifname: '',
      since: new Date(releasedAtMs).toISOString(),
    }));
  return [...used, ...elsewhere, ...released].toSorted((a, b) => {
    const [x, y] = [parseIp(a.ip), parseIp(b.ip)];
    if (familyOf(x) !== familyOf(y)) return familyOf(x) - familyOf(y);
    return ipBits(x) < ipBits(y) ? -1 : 1;
  });
}

function setRows(request: Request, rows: readonly AddressRow[]): SetRow[] {
  const { ipam } = parseConfig(request.config);
  if (!ipam) return [];
  return rangeSetsOf(ipam).map((set, index) => ({
    set: index,
    ranges: set.map(
      ({ family, first, last }) => `${ipFromBits(family, first)}-${ipFromBits(family, last)}`,
    ),
    size: String(capacityOf(set)),
    used: rows.filter(
      ({ ip, state }) =>
        state !== 'released' &&
        set.some(
          (range) =>
            range.family === familyOf(ip) &&
            range.first <= ipBits(parseIp(ip)) &&
            ipBits(parseIp(ip)) <= range.last,
        ),
    ).length,
  }));
}

function listText(rows: readonly AddressRow[], sets: readonly SetRow[]): string {
  const table = formatTable([
    ['ADDRESS', 'STATE', 'CONTAINER', 'LINK', 'SINCE'],
    ...rows.map(({ ip, state, container, ifname, since }) => [
      ip,
      state,
      container || '-',
      ifname || '-',
      since || '-',
    ]),
  ]);
  const summary = sets
    .map(
      ({ set, ranges, size, used }) =>
        `range set ${set}: ${used} of ${size} used (${ranges.join(', ')})\n`,
    )
    .join('');
  return (rows.length === 0 ? 'no address is in use\n' : table) + summary;
}

/** Gives back an address by removing the attachment that has it, or forgets that it was used. */
function releaseAddress(context: CallContext, request: Request, text: string): string {
  const { network } = request.key;
  const ip = parseIp(text);
  const owner = context.state.ownerOf(network, ip);
  if (owner) {
    del(context, owner);
    return `released ${ip}: attachment ${formatKey(owner)} was removed\n`;
  }
  if (context.state.forgetReleased(network, ip))
    return `released ${ip}: it can be handed out again at once\n`;
  throw new CniError(
    CNI_ERROR.unknownContainer,
    `address ${ip} is not in use in network ${network}`,
    'cube-cni ipam list shows those that are',
  );
}

/** Adds `ipam list` and `ipam release`. */
export function addIpamCommands(program: Command, { open }: Opened): void {
  const ipam = program.command('ipam').description('the addresses of a network');
  ipam
    .command('list')
    .description('who has which address, and how many are left')
    .requiredOption('-c, --config <file>', 'network configuration or list; - reads standard input')
    .option('--json', 'print JSON')
    .action(async (flags: { readonly config: string; readonly json?: true }) => {
      const request = networkRequest(flags.config);
      const context = await open(request, { cniPath: CNI_PATH }, 'look');
      const rows = addressRows(context, request);
      const sets = setRows(request, rows);
      const text = flags.json
        ? `${JSON.stringify({ network: request.key.network, addresses: rows, rangeSets: sets }, null, 2)}\n`
        : listText(rows, sets);
      writeAll(1, text);
    });
  ipam
    .command('release')
    .description(
      'remove the attachment that has an address, or let one that was given back be used at once',
    )
    .argument('<address>', 'the address, without a prefix length')
    .requiredOption('-c, --config <file>', 'network configuration or list; - reads standard input')
    .option('--cni-path <folders>', 'where other plugins are', CNI_PATH)
    .action(
      async (address: string, flags: { readonly config: string; readonly cniPath: string }) => {
        const request = networkRequest(flags.config);
        const context = await open({ ...request, verb: 'GC' }, flags, 'change');
        writeAll(1, releaseAddress(context, request, address));
      },
    );
}
