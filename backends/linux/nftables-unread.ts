/**
 * Which tables of nft there are whose chains are not read: those of family arp and netdev, and what those of inet have at links. Told are the
 * chains with hooks, and how many rules are in each; what the rules say is not read.
 */
import type { Fault } from '../../model/errno.ts';
import type { NetnsName } from '../../model/host.ts';
import { expectAnswer } from './answer.ts';
import {
  type Attributes,
  eachAttribute,
  findBe32,
  findNest,
  findSpan,
  findText,
  putText,
  readAttributes,
} from './attribute.ts';
import type { KernelNetns } from './kernel.ts';
import type { LinuxBackend } from './linux.ts';
import { type Message, NLM_F_DUMP, encodeMessage } from './message.ts';
import { encodeChainDump } from './nftables-message.ts';
import { NFGENMSG_BYTES, NFNL_SUBSYS_NFTABLES, NFT_MSG } from './nftables-number.ts';
import { type NetlinkSocket, isFault } from './socket.ts';
import { wholeDump } from './whole-dump.ts';

const NFTA_CHAIN_TABLE = 1;
const NFTA_CHAIN_NAME = 3;
const NFTA_CHAIN_HOOK = 4;
const NFTA_CHAIN_POLICY = 5;
const NFTA_HOOK_HOOKNUM = 1;
const NFTA_HOOK_DEV = 3;
const NFTA_HOOK_DEVS = 4;
const NFTA_DEVICE_NAME = 1;
const NFTA_DEVICE_PREFIX = 2;
const NF_DROP = 0;

type Hook = 'input' | 'output' | 'forward' | 'ingress' | 'egress';

/** NFPROTO_* of the families, with their hooks by number: NF_ARP_*, NF_NETDEV_* and NF_INET_INGRESS. */
const FAMILIES = new Map<
  number,
  { readonly family: 'inet' | 'arp' | 'netdev'; readonly hooks: ReadonlyMap<number, Hook> }
>([
  [1, { family: 'inet', hooks: new Map([[5, 'ingress']]) }],
  [
    3,
    {
      family: 'arp',
      hooks: new Map([
        [0, 'input'],
        [1, 'output'],
        [2, 'forward'],
      ]),
    },
  ],
  [
    5,
    {
      family: 'netdev',
      hooks: new Map([
        [0, 'ingress'],
        [1, 'egress'],
      ]),
    },
  ],
]);

interface UnreadChain {
  readonly hook: Hook;
  readonly devices?: readonly string[];
  readonly rules: number;
  readonly policy: 'accept' | 'drop';
}

/** A table with those of its chains that are not read and have hooks. */
export interface UnreadTable {
  readonly program: 'nft';
  readonly family: 'inet' | 'arp' | 'netdev';
  readonly name: string;
  readonly chains: readonly UnreadChain[];
}

interface ChainRecord extends Pick<UnreadTable, 'family' | 'name'> {
  readonly number: number;
  readonly chainName: string;
  readonly chain: Omit<UnreadChain, 'rules'>;
}

/** The links of a chain, by their names, or by how these begin. */
function findDevices(hook: Attributes): readonly string[] {
  const span = findSpan(hook, NFTA_HOOK_DEVS);
  if (!span) return [findText(hook, NFTA_HOOK_DEV)].filter((name) => name !== undefined);
  const devices: string[] = [];
  eachAttribute(hook, span.start, span.end, (type, start, end) => {
    // A terminating zero, which a prefix has too (nft_nla_put_hook_dev).
    const bytes = hook.bytes.subarray(start, end);
    const name = new TextDecoder().decode(bytes).split('\0')[0] ?? '';
    if (type === NFTA_DEVICE_NAME) devices.push(name);
    if (type === NFTA_DEVICE_PREFIX) devices.push(`${name}*`);
  });
  return devices;
}

function decodeUnreadChain(message: Message): ChainRecord | undefined {
  if (message.type !== ((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG.newChain)) return undefined;
  const number = message.bytes[message.start] ?? 0;
  const known = FAMILIES.get(number);
  const attributes = readAttributes(message, message.start + NFGENMSG_BYTES, message.end);
  const nest = findNest(attributes, NFTA_CHAIN_HOOK);
  const hook = nest && known?.hooks.get(findBe32(nest, NFTA_HOOK_HOOKNUM) ?? -1);
  if (!nest || !known || !hook) return undefined;
  const isAtLinks = hook === 'ingress' || hook === 'egress';
  const policy = findBe32(attributes, NFTA_CHAIN_POLICY) === NF_DROP ? 'drop' : 'accept';
  return {
    number,
    family: known.family,
    name: findText(attributes, NFTA_CHAIN_TABLE) ?? '',
    chainName: findText(attributes, NFTA_CHAIN_NAME) ?? '',
    chain: { hook, policy, ...(isAtLinks ? { devices: findDevices(nest) } : {}) },
  };
}

/** Asks for the rules of a chain, the first two attributes being its table and its name. */
function encodeRulesOf({ number, name, chainName }: ChainRecord): Uint8Array {
  const type = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG.getRule;
  return encodeMessage(type, NLM_F_DUMP, NFGENMSG_BYTES, (writer, fixed) => {
    writer.bytes[fixed] = number;
    putText(writer, 1, name);
    putText(writer, 2, chainName);
  });
}

function encodeAllChains(): Uint8Array {
  return encodeChainDump(undefined);
}

function tablesFrom(socket: NetlinkSocket): readonly UnreadTable[] | Fault {
  const records = socket.dump(wholeDump(encodeAllChains), decodeUnreadChain);
  if (isFault(records)) return records;
  const tables = new Map<string, UnreadTable>();
  for (const record of records) {
    const { family, name, chain } = record;
    const rules = socket.dump(encodeRulesOf(record), () => true);
    // It went meanwhile.
    if (isFault(rules) && rules.errno === 'ENOENT') continue;
    if (isFault(rules)) return rules;
    const key = `${family} ${name}`;
    const chains = [...(tables.get(key)?.chains ?? []), { ...chain, rules: rules.length }];
    tables.set(key, { program: 'nft', family, name, chains });
  }
  return [...tables.values()];
}

function tablesIn(netns: KernelNetns): readonly UnreadTable[] | Fault {
  const socket = netns.netfilter();
  // A kernel without nf_tables has no tables.
  if (isFault(socket)) return socket.errno === 'EPROTONOSUPPORT' ? [] : socket;
  return tablesFrom(socket);
}

/** The tables of each of these netns that has any, by a backend that has them open. One that is not there is not in the answer. Throws where the kernel may not be asked. */
export function readUnreadTables(
  backend: Pick<LinuxBackend, 'netns'>,
  names: readonly NetnsName[],
): Readonly<Record<NetnsName, readonly UnreadTable[]>> {
  const tables: Record<NetnsName, readonly UnreadTable[]> = {};
  for (const name of names) {
    const netns = backend.netns(name);
    if (isFault(netns)) continue;
    const found = tablesIn(netns);
    // setns(2) says so of a file that is no netns; of a kernel without nf_tables nobody answers.
    if (isFault(found) && (found.errno === 'EINVAL' || found.errno === 'EOPNOTSUPP')) continue;
    const here = expectAnswer(found, name, 'the nft tables');
    if (here.length > 0) tables[name] = here;
  }
  return tables;
}
