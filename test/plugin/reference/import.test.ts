import { join } from 'node:path';
import { describe, expect, it, test } from 'vitest';
import type { Host } from '../../../model/host.ts';
import type { Ifname } from '../../../model/ifname.ts';
import { parseIp } from '../../../model/ip.ts';
import type { Identity } from '../../../plugin/attachment.ts';
import type { Reservation } from '../../../plugin/reference/host-local.ts';
import {
  type Import,
  type ReferenceNetwork,
  importAttachments,
} from '../../../plugin/reference/import.ts';
import { type CachedResult, readResultCache } from '../../../plugin/reference/result-cache.ts';
import { IN_MEMORY, openStore } from '../../../plugin/store/open.ts';
import { referenceHost } from './pods.ts';

const ID = '5f19cec2bdfaee5ad9dfeeb1e0a644baac456d7e4f20690612e03573aec919de';
const NETNS = '/var/run/netns/cni-86af50e2-e8bf-4320-0418-33be0aefb987';
const { entries } = readResultCache(join(import.meta.dirname, 'cache'));
const ENTRY = entries[1] as CachedResult;
const HOST: Host = referenceHost([
  { hostIfname: 'vethb29ad1ba', hostMac: 'c6:16:42:2e:d7:2a', netns: NETNS },
]);
const IDENTITY: Identity = {
  machineId: '0123456789abcdef0123456789abcdef',
  digest: (text) => new Bun.CryptoHasher('sha256').update(text).digest(),
};

function reserved(ip: string, containerId: string = ID, ifname?: string): Reservation {
  return { ip: parseIp(ip), containerId, ifname };
}

const RESERVATIONS = [reserved('10.88.0.2', ID, 'eth0'), reserved('fd88::2', ID, 'eth0')];

function imported(changes: Partial<ReferenceNetwork> = {}): Import {
  return importAttachments({
    network: 'podnet',
    entries,
    reservations: RESERVATIONS,
    observed: HOST,
    identity: IDENTITY,
    hasRecord: () => false,
    ...changes,
  });
}

/** The entry with another bridge plugin, or another part of its result. */
function entryWith(bridge: object, result: object = {}): CachedResult[] {
  const plugins = ENTRY.config['plugins'] as object[];
  return [
    {
      ...ENTRY,
      config: { ...ENTRY.config, plugins: [{ ...plugins[0], ...bridge }, ...plugins.slice(1)] },
      result: { ...(ENTRY.result as object), ...result },
    },
  ];
}

/** Why the pod was not imported, undefined when it was. */
function obstacle(changes: Partial<ReferenceNetwork>): string | undefined {
  const { attachments, notImported } = imported(changes);
  expect(attachments.length + notImported.length).toBe(1);
  return notImported[0]?.why;
}

describe('import', () => {
  it('makes a record of what the result and the host say', () => {
    expect(imported()).toEqual({
      attachments: [
        {
          key: { network: 'podnet', containerId: ID, ifname: 'eth0' },
          netns: NETNS,
          bridge: 'cni0',
          bridgeMac: expect.stringMatching(/^.[26ae]:/),
          promiscuous: false,
          hostIfname: 'vethb29ad1ba',
          hostMac: 'c6:16:42:2e:d7:2a',
          podMac: 'b2:a5:e2:4b:36:0e',
          mtuBytes: 1450,
          hairpin: true,
          gateway: true,
          forceAddress: false,
          masquerade: false,
          addresses: [
            { ip: '10.88.0.2', prefixLength: 24, gateway: '10.88.0.1' },
            { ip: 'fd88::2', prefixLength: 64, gateway: 'fd88::1' },
          ],
          routes: [
            { destination: '0.0.0.0/0', gateway: '10.88.0.1' },
            { destination: '::/0', gateway: 'fd88::1' },
          ],
          madeBy: 'reference chain',
        },
      ],
      notImported: [],
    });
  });

  it('may be repeated: what has a record is left alone', () => {
    const state = openStore(IN_MEMORY, 'boot');
    const hasRecord: ReferenceNetwork['hasRecord'] = (key) => state.find(key) !== undefined;
    for (const attachment of imported({ hasRecord }).attachments) {
      state.put(attachment, { pid: 1, startTime: '1' }, []);
      state.finish(attachment.key);
    }
    expect(state.ownerOf('podnet', parseIp('fd88::2'))).toMatchObject({ containerId: ID });
    expect(imported({ hasRecord })).toEqual({ attachments: [], notImported: [] });
  });

  it('takes pods without a file of host-local all the same: their address is in use', () => {
    expect(obstacle({ reservations: [] })).toBeUndefined();
  });

  it('reports reservations that nobody has a result of, once per address', () => {
    const more = [reserved('10.88.0.7', 'gone', 'eth0'), reserved('10.88.0.8', 'older')];
    expect(imported({ reservations: [...RESERVATIONS, ...more] }).notImported).toEqual([
      {
        what: 'podnet/gone/eth0',
        why: "host-local has reserved 10.88.0.7 for it, but there is no result of it in the runtime's cache",
      },
      {
        what: 'podnet/older',
        why: "host-local has reserved 10.88.0.8 for it, but there is no result of it in the runtime's cache",
      },
    ]);
  });

  it('knows reservations without a link name by their container', () => {
    expect(obstacle({ reservations: [reserved('10.88.0.2')] })).toBeUndefined();
  });

  it('gives an address to one attachment only', () => {
    const twice = { ...ENTRY, ifname: 'net1' as Ifname };
    const result = JSON.parse(JSON.stringify(ENTRY.result).replace('"eth0"', '"net1"'));
    const { attachments, notImported } = imported({
      entries: [ENTRY, { ...twice, result }],
      reservations: [],
    });
    expect(attachments).toHaveLength(1);
    expect(notImported).toEqual([
      {
        what: `podnet/${ID}/net1`,
        why: `its address 10.88.0.2 is that of podnet/${ID}/eth0`,
      },
    ]);
  });

  test.each<[string, Partial<ReferenceNetwork>, string]>([
    ['another plugin', { entries: entryWith({ type: 'ptp' }) }, 'it was made by "ptp"'],
    [
      'addresses of another plugin',
      { entries: entryWith({ ipam: { type: 'static' } }) },
      'its addresses are of "static"',
    ],
    ['what records cannot say', { entries: entryWith({ mtu: 'big' }) }, 'mtu'],
    ['a host end that is gone', { observed: referenceHost([]) }, 'its host end is not among'],
    [
      'a host end that is another link',
      {
        observed: referenceHost([
          { hostIfname: 'vethb29ad1ba', hostMac: '02:00:00:00:00:09', netns: NETNS },
        ]),
      },
      'its host end is not among',
    ],
    ['another bridge', { entries: entryWith({ bridge: 'br9' }) }, 'the ports of br9'],
    ['no address', { entries: entryWith({}, { ips: [] }) }, 'its result names no address'],
    [
      'no gateway',
      { entries: entryWith({}, { ips: [{ address: '10.88.0.2/24' }] }) },
      'its address 10.88.0.2 has no gateway',
    ],
    ['no links', { entries: entryWith({}, { interfaces: [] }) }, 'its result names no link eth0'],
    [
      'an address that host-local gave to somebody else',
      { reservations: [reserved('10.88.0.2', 'else', 'eth0')], entries: entryWith({}) },
      'its address 10.88.0.2 is that of else/eth0',
    ],
  ])('says why it does not take a pod with %s', (_what, changes, why) => {
    expect(imported(changes).attachments).toEqual([]);
    expect(imported(changes).notImported[0]?.why).toContain(why);
  });
});
