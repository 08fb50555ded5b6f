import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseIp } from '../../../model/ip.ts';
import { hostLocalOf } from '../../../plugin/ipam/host-local-folder.ts';
import {
  isReserved,
  lastReserved,
  reservations,
  reservationsOf,
} from '../../../plugin/reference/host-local.ts';

function folderOf(ipam: unknown): string {
  return hostLocalOf({ config: { ipam }, key: { network: 'podnet' } } as never);
}

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cube-cni-host-local-'));
});

afterEach(() => rmSync(folder, { recursive: true }));

function write(files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
}

function addressesOf(containerId: string, ifname: string): string[] {
  return reservationsOf(reservations(folder).reservations, containerId, ifname).map(({ ip }) => ip);
}

describe('reservations', () => {
  it('are files named by address, with container and link', () => {
    write({
      '10.1.0.2': 'one\r\neth0',
      '10.1.0.3': 'old',
      '10.1.0.4': ' two\neth1 \n',
      'fd01::2': 'one\r\neth0',
      lock: '',
      'last_reserved_ip.0': '10.1.0.4',
    });
    expect(reservations(folder)).toEqual({
      reservations: [
        { ip: '10.1.0.2', containerId: 'one', ifname: 'eth0' },
        { ip: '10.1.0.3', containerId: 'old', ifname: undefined },
        { ip: '10.1.0.4', containerId: 'two', ifname: 'eth1' },
        { ip: 'fd01::2', containerId: 'one', ifname: 'eth0' },
      ],
      notUnderstood: [],
    });
  });

  it('says which files it did not understand', () => {
    write({
      '10.1.0.2': 'one\r\neth0',
      '10.1.0.3': '',
      '10.1.0.4': '\0\0\0 \0',
      '10.1.0.5': 'a\nb\nc',
      README: 'x',
    });
    mkdirSync(join(folder, '10.1.0.6'));
    expect(reservations(folder)).toEqual({
      reservations: [{ ip: '10.1.0.2', containerId: 'one', ifname: 'eth0' }],
      notUnderstood: [
        `${folder}/10.1.0.3: it is empty`,
        `${folder}/10.1.0.4: it names no owner`,
        `${folder}/10.1.0.5: it names no owner`,
        `${folder}/10.1.0.6: it is a folder`,
        `${folder}/README: its name is no address`,
      ],
    });
  });

  it('are none where there is no folder', () => {
    expect(reservations(join(folder, 'missing'))).toEqual({ reservations: [], notUnderstood: [] });
    expect(lastReserved(join(folder, 'missing'))).toEqual([]);
    expect(isReserved(join(folder, 'missing'), parseIp('10.1.0.2'))).toBe(false);
  });

  it('of an attachment are those of its link, else those that name no link', () => {
    write({
      '10.1.0.2': 'one\r\neth0',
      '10.1.0.3': 'one\r\nnet1',
      '10.1.0.4': 'one',
      '10.1.0.5': 'two',
    });
    expect(addressesOf('one', 'eth0')).toEqual(['10.1.0.2']);
    expect(addressesOf('one', 'net1')).toEqual(['10.1.0.3']);
    expect(addressesOf('one', 'net2')).toEqual(['10.1.0.4']);
    expect(addressesOf('two', 'eth0')).toEqual(['10.1.0.5']);
    expect(addressesOf('three', 'eth0')).toEqual([]);
  });
});

it('an address is reserved when there is a file, whatever it holds', () => {
  write({ '10.1.0.2': 'one\r\neth0', '10.1.0.3': '', 'fd01::2': 'one\r\neth0' });
  const texts = ['10.1.0.2', '10.1.0.3', 'fd01:0::2', '10.1.0.4'];
  expect(texts.map((text) => isReserved(folder, parseIp(text)))).toEqual([true, true, true, false]);
});

it('the address handed out last, of each range set', () => {
  write({
    'last_reserved_ip.10': 'fd01::9\n',
    'last_reserved_ip.0': '10.1.0.4',
    'last_reserved_ip.1': 'nonsense',
    'last_reserved_ip.x': '10.1.0.9',
  });
  expect(lastReserved(folder)).toEqual([
    { set: 0, ip: '10.1.0.4' },
    { set: 10, ip: 'fd01::9' },
  ]);
});

it('a network has a folder of its own', () => {
  expect(folderOf(undefined)).toBe('/var/lib/cni/networks/podnet');
  expect(folderOf({ dataDir: '/data' })).toBe('/data/podnet');
});
