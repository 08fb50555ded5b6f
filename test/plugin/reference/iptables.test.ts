import { describe, expect, it, test } from 'vitest';
import type { Ifname } from '../../../model/ifname.ts';
import { parseIp } from '../../../model/ip.ts';
import { removeReferenceRules } from '../../../plugin/reference/chains.ts';
import { parseListing, parseWords } from '../../../plugin/reference/iptables.ts';
import { referenceNames } from '../../../plugin/reference/names.ts';
import type { ProgramAnswer, RunProgram } from '../../../plugin/reference/programs.ts';
import type { DepartingRules } from '../../../plugin/reference/removal.ts';
import { refusal } from '../refusal.ts';

const KEY = { network: 'net', containerId: 'pod', ifname: 'eth0' as Ifname };
const OWN = referenceNames(KEY);
const OTHER = referenceNames({ ...KEY, containerId: 'other' });

describe('words of a line', () => {
  test.each([
    ['-s 10.0.0.2/32 -j X', ['-s', '10.0.0.2/32', '-j', 'X']],
    [
      String.raw`-m comment --comment "name: \"a b\" id: \\ \'x\'" -j X`,
      ['-m', 'comment', '--comment', `name: "a b" id: \\ 'x'`, '-j', 'X'],
    ],
    ['--comment "" ! -d 224.0.0.0/4', ['--comment', '', '!', '-d', '224.0.0.0/4']],
  ])('%s', (line, words) => {
    expect(parseWords(line)).toEqual(words);
  });
});

it('reads chains and rules, and nothing else', () => {
  expect(
    parseListing('-P INPUT ACCEPT\n-N A\n-A A -j B\n-A A\n# Warning: -A X\n\n[0:0] -A Y -j Z'),
  ).toEqual({
    chains: ['A'],
    rules: [
      { chain: 'A', words: ['-j', 'B'], text: '-j B' },
      { chain: 'A', words: [], text: '' },
    ],
  });
});

const NAT = `-P POSTROUTING ACCEPT
-N ${OWN.masquerade}
-N ${OTHER.masquerade}
-N ${OWN.portMapping}
-N CNI-HOSTPORT-DNAT
-A POSTROUTING -s 10.0.0.2/32 -m comment --comment "name: \\"net\\" id: \\"pod\\"" -j ${OWN.masquerade}
-A POSTROUTING -s 10.0.0.3/32 -j ${OTHER.masquerade}
-A ${OWN.masquerade} -d 10.0.0.0/24 -j ACCEPT
-A ${OTHER.masquerade} -d 10.0.0.0/24 -j ACCEPT
-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 8080 -j ${OWN.portMapping}
-A ${OWN.portMapping} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80
`;
const FILTER = `-N CNI-FORWARD
-A FORWARD -s 10.0.0.2/32 -j ACCEPT
-A CNI-FORWARD -d 10.0.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A CNI-FORWARD -s 10.0.0.2/32 -j ACCEPT
-A CNI-FORWARD -s 10.0.0.2/32 -j DROP
-A CNI-FORWARD -s 10.0.0.20/32 -j ACCEPT
-A CNI-FORWARD -s 10.0.0.3/32 -j ACCEPT
`;

/** Programs that hold these rules and drop what they are told to; `refuses` says what a command is answered. */
function machine(
  tables: Record<string, string>,
  refuses: (args: readonly string[]) => ProgramAnswer | undefined = () => undefined,
): RunProgram {
  return (name, args) => {
    if (name !== 'iptables') return undefined;
    const refused = refuses(args);
    if (refused) return refused;
    const [, , , table = '', command = '', chain = '', ...words] = args;
    const text = tables[table] ?? '';
    if (command === '-S') return { status: 0, stdout: text, stderr: '' };
    const goes = (line: string): boolean => {
      const [flag, of, ...rest] = parseWords(line);
      if (of !== chain) return false;
      if (command === '-X') return flag === '-N';
      return flag === '-A' && (command === '-F' || rest.join('\0') === words.join('\0'));
    };
    const lines = text.split('\n');
    tables[table] = lines.filter((line) => !goes(line)).join('\n');
    return { status: 0, stdout: '', stderr: '' };
  };
}

function departing(addresses: readonly string[], shared: readonly string[] = []): DepartingRules {
  return { key: KEY, addresses: addresses.map(parseIp), shared: shared.map(parseIp) };
}

describe('removing rules', () => {
  it('takes the chains, the jumps to them, and what lets the addresses through', () => {
    const tables = { nat: NAT, filter: FILTER };
    const run = machine(tables);
    expect(removeReferenceRules(run, departing(['10.0.0.2']))).toEqual([
      `iptables -t nat -D POSTROUTING -s 10.0.0.2/32 -m comment --comment "name: \\"net\\" id: \\"pod\\"" -j ${OWN.masquerade}`,
      `iptables -t nat -F ${OWN.masquerade}`,
      `iptables -t nat -X ${OWN.masquerade}`,
      `iptables -t nat -D CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 8080 -j ${OWN.portMapping}`,
      `iptables -t nat -F ${OWN.portMapping}`,
      `iptables -t nat -X ${OWN.portMapping}`,
      'iptables -t filter -D CNI-FORWARD -d 10.0.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
      'iptables -t filter -D CNI-FORWARD -s 10.0.0.2/32 -j ACCEPT',
    ]);
    expect(tables).toEqual({
      nat: `-P POSTROUTING ACCEPT
-N ${OTHER.masquerade}
-N CNI-HOSTPORT-DNAT
-A POSTROUTING -s 10.0.0.3/32 -j ${OTHER.masquerade}
-A ${OTHER.masquerade} -d 10.0.0.0/24 -j ACCEPT
`,
      filter: `-N CNI-FORWARD
-A FORWARD -s 10.0.0.2/32 -j ACCEPT
-A CNI-FORWARD -s 10.0.0.2/32 -j DROP
-A CNI-FORWARD -s 10.0.0.20/32 -j ACCEPT
-A CNI-FORWARD -s 10.0.0.3/32 -j ACCEPT
`,
    });
    expect(removeReferenceRules(run, departing(['10.0.0.2']))).toEqual([]);
  });

  it('leaves to another link of the container the chains that both use', () => {
    const nat = `${NAT}-A POSTROUTING -s 10.0.0.9/32 -j ${OWN.masquerade}
-A ${OWN.portMapping} -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.0.0.9:80
`;
    const run = machine({ nat, filter: '' });
    expect(removeReferenceRules(run, departing(['10.0.0.2'], ['10.0.0.9']))).toEqual([
      expect.stringContaining('-D POSTROUTING -s 10.0.0.2/32'),
      `iptables -t nat -D ${OWN.portMapping} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80`,
    ]);
  });

  it('has nothing to do without programs, or without tables in the kernel', () => {
    expect(removeReferenceRules(() => undefined, departing(['10.0.0.2']))).toEqual([]);
    for (const [status, stderr] of [
      [3, "iptables v1.8.9 (legacy): can't initialize iptables table `nat'"],
      [1, "iptables v1.8.9 (nf_tables): table `nat' is incompatible, use 'nft' tool."],
    ] as const)
      expect(
        removeReferenceRules(() => ({ status, stdout: '', stderr }), departing(['10.0.0.2'])),
      ).toEqual([]);
  });

  it('looks again when a rule went meanwhile', () => {
    const tables = { nat: NAT, filter: '' };
    let refusals = 1;
    const run = machine(tables, (args) =>
      args.includes('-D') && refusals-- > 0
        ? { status: 1, stdout: '', stderr: 'iptables: Bad rule' }
        : undefined,
    );
    removeReferenceRules(run, departing(['10.0.0.2']));
    expect(tables.nat).not.toContain(OWN.masquerade);
  });

  it('says what refuses', () => {
    const refused = { status: 4, stdout: '', stderr: 'iptables: Resource busy\nmore' };
    const onDelete = machine({ nat: NAT, filter: '' }, (args) =>
      args.includes('-X') ? refused : undefined,
    );
    expect(refusal(() => removeReferenceRules(onDelete, departing([])))).toBe(
      `100 cannot remove what the reference plugins left | iptables -t nat -X ${OWN.portMapping}: iptables: Resource busy`,
    );
    const onList = machine({}, () => refused);
    expect(refusal(() => removeReferenceRules(onList, departing([])))).toBe(
      '100 cannot list the rules of the reference plugins | iptables -t nat -S: iptables: Resource busy',
    );
  });
});
