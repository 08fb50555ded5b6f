import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, test } from 'vitest';
import { parseCachedResult, readResultCache } from '../../../plugin/reference/result-cache.ts';

/** What containerd 1.6 left of one pod with the reference bridge, host-local, portmap and firewall. */
const CACHE = join(import.meta.dirname, 'cache');
const ID = '5f19cec2bdfaee5ad9dfeeb1e0a644baac456d7e4f20690612e03573aec919de';
const FILE = `podnet-${ID}-eth0`;

function cacheFile(changes: Readonly<Record<string, unknown>>): string {
  const object: object = JSON.parse(readFileSync(join(CACHE, FILE), 'utf8'));
  return JSON.stringify({ ...object, ...changes });
}

describe("libcni's cache", () => {
  it('as containerd leaves it', () => {
    const { entries, damaged } = readResultCache(CACHE);
    expect(damaged).toEqual([]);
    expect(entries.map(({ network, ifname }) => [network, ifname])).toEqual([
      ['cni-loopback', 'lo'],
      ['podnet', 'eth0'],
    ]);
    expect(entries[1]).toEqual({
      network: 'podnet',
      containerId: ID,
      ifname: 'eth0',
      config: {
        cniVersion: '1.0.0',
        name: 'podnet',
        plugins: [
          {
            type: 'bridge',
            bridge: 'cni0',
            isDefaultGateway: true,
            ipMasq: true,
            hairpinMode: true,
            ipam: {
              type: 'host-local',
              ranges: [[{ subnet: '10.88.0.0/24' }], [{ subnet: 'fd88::/64' }]],
            },
          },
          { type: 'portmap', capabilities: { portMappings: true } },
          { type: 'firewall' },
        ],
      },
      result: expect.objectContaining({ cniVersion: '1.0.0' }),
    });
  });

  it('names the netns since libcni 1.1', () => {
    expect(parseCachedResult(cacheFile({ netns: '/run/netns/x' })).netns).toBe('/run/netns/x');
  });

  it('reports what is damaged and reads the rest', () => {
    const folder = mkdtempSync(join(tmpdir(), 'cube-cni-cache-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    copyFileSync(join(CACHE, FILE), join(folder, 'a'));
    writeFileSync(join(folder, 'b'), cacheFile({}).slice(0, 100));
    writeFileSync(join(folder, 'c'), '');
    writeFileSync(join(folder, 'd'), '{"cniVersion":"0.4.0","interfaces":[]}');
    const { entries, damaged } = readResultCache(folder);
    expect(entries).toHaveLength(1);
    expect(damaged).toEqual([
      expect.stringContaining(`${folder}/b: `),
      expect.stringContaining(`${folder}/c: `),
      `${folder}/d: it is not of kind cniCacheV1`,
    ]);
  });

  it('is empty where there is no folder', () => {
    expect(readResultCache('/nowhere/at/all')).toEqual({ entries: [], damaged: [] });
  });

  test.each([
    [{ kind: 'cniCacheV2' }, 'it is not of kind cniCacheV1'],
    [{ ifName: 'much-too-long-a-name' }, 'cannot be a link name'],
    [{ containerId: '' }, 'containerId is missing'],
    [{ networkName: undefined }, 'networkName is missing'],
    [{ result: undefined }, 'result is missing'],
    [{ config: btoa('[]') }, 'config is no JSON object'],
    [{ config: btoa('{') }, 'JSON'],
  ])('with %o is damaged', (changes, message) => {
    expect(() => parseCachedResult(cacheFile(changes))).toThrow(message);
  });
});
