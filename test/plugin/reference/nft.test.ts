import { expect, it } from 'vitest';
import type { Ifname } from '../../../model/ifname.ts';
import { parseIp } from '../../../model/ip.ts';
import { removeReferenceRules } from '../../../plugin/reference/chains.ts';
import type { ProgramAnswer, RunProgram } from '../../../plugin/reference/programs.ts';
import { refusal } from '../refusal.ts';

const DEPARTING = {
  key: { network: 'net', containerId: 'pod', ifname: 'eth0' as Ifname },
  addresses: [parseIp('10.0.0.2')],
  shared: [],
};

function fine(stdout: unknown): ProgramAnswer {
  return { status: 0, stdout: JSON.stringify(stdout), stderr: '' };
}

function failed(stderr: string): ProgramAnswer {
  return { status: 1, stdout: '', stderr };
}

const TABLES = fine({
  nftables: [
    { metainfo: { version: '1.0.6' } },
    { table: { family: 'ip', name: 'cni_hostport', handle: 1 } },
    { table: { family: 'ip', name: 'nat', handle: 2 } },
  ],
});

function rule(handle: number, comment: string, address: string): object {
  return {
    rule: {
      family: 'ip',
      table: 'cni_hostport',
      chain: 'hostports',
      handle,
      comment,
      expr: [
        {
          match: { op: '==', left: { payload: { protocol: 'tcp', field: 'dport' } }, right: 8080 },
        },
        { dnat: { addr: address, port: 80 } },
      ],
    },
  };
}

/** An nft whose one table is answered in this way, the last answer for ever. */
function nft(...listings: ProgramAnswer[]): { run: RunProgram; commands: string[] } {
  const commands: string[] = [];
  const run: RunProgram = (name, args) => {
    if (name !== 'nft') return undefined;
    if (args.includes('tables')) return TABLES;
    if (args.includes('list')) return listings.length > 1 ? listings.shift() : listings[0];
    commands.push(args.join(' '));
    return { status: 0, stdout: '', stderr: '' };
  };
  return { run, commands };
}

const WITHOUT = fine({ nftables: [rule(5, 'other', '10.0.0.3')] });

it('removes by handle what has the comment and the address', () => {
  const own = [
    rule(3, 'pod', '10.0.0.2'),
    rule(4, 'pod', '10.9.0.2'),
    rule(5, 'other', '10.0.0.2'),
  ];
  const { run, commands } = nft(fine({ nftables: own }), WITHOUT);
  expect(removeReferenceRules(run, DEPARTING)).toEqual([
    'nft delete rule ip cni_hostport hostports handle 3',
  ]);
  expect(commands).toEqual(['delete rule ip cni_hostport hostports handle 3']);
});

it('goes by the comment alone when no address is known', () => {
  const own = [rule(3, 'pod', '10.0.0.2'), rule(4, 'pod', '10.9.0.2')];
  const { run, commands } = nft(fine({ nftables: own }), WITHOUT);
  removeReferenceRules(run, { ...DEPARTING, addresses: [] });
  expect(commands).toHaveLength(2);
});

it('has nothing to do when the table goes meanwhile, or nft speaks no JSON', () => {
  const { run } = nft(failed('Error: No such file or directory\nlist table ip cni_hostport'));
  expect(removeReferenceRules(run, DEPARTING)).toEqual([]);
  const old: RunProgram = () => failed('Error: JSON support not compiled-in');
  expect(
    removeReferenceRules((name, args) => (name === 'nft' ? old(name, args) : undefined), DEPARTING),
  ).toEqual([]);
});

it('says what refuses', () => {
  const { run } = nft(failed('Error: Operation not permitted\nmore'));
  expect(refusal(() => removeReferenceRules(run, DEPARTING))).toBe(
    '100 cannot list the rules of the reference plugins | nft list table ip cni_hostport: Error: Operation not permitted',
  );
});
