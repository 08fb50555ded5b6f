/** Which tables of iptables-legacy are told of, of netns in which its own programs made some. */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LAYOUTS, infoQuestion } from '../../backends/linux/legacy-table-message.ts';
import { type LegacyTable, readLegacyTables } from '../../backends/linux/legacy-tables.ts';
import { addNetns, delNetns, insideNetns, openNetns } from '../../backends/linux/netns.ts';
import { openOptions } from '../../backends/linux/option-socket.ts';
import { isFault } from '../../backends/linux/socket.ts';
import { requirement } from '../requirements.ts';

describe.skipIf(requirement('root', 'iptables-legacy'))('tables of iptables-legacy', () => {
  // By a path, so that whoever looks at all named netns meanwhile does not see it.
  const folder = mkdtempSync(join(tmpdir(), 'cube-legacy-'));
  const netns = join(folder, 'netns');

  beforeEach(() => {
    addNetns(netns);
  });
  afterEach(() => {
    delNetns(netns);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  function run(...commands: readonly string[]): void {
    for (const command of commands) {
      const words = [`--net=${netns}`, ...command.split(' ')];
      const { status, stderr } = spawnSync('nsenter', words, { encoding: 'utf8' });
      expect(status, `${command}: ${stderr}`).toBe(0);
    }
  }

  /** What is told of the netns: `ip filter forward 2 accept`. */
  function told(): string[] {
    const tables: readonly LegacyTable[] = readLegacyTables([netns])[netns] ?? [];
    return tables
      .flatMap(({ family, name, chains }) =>
        chains.map(({ hook, rules, policy }) => `${family} ${name} ${hook} ${rules} ${policy}`),
      )
      .toSorted();
  }

  it('are none where nobody made any, and reading makes none', () => {
    expect(told()).toEqual([]);
    expect(told()).toEqual([]);
  });

  it('are empty where somebody only looked', () => {
    run('iptables-legacy -S', 'ip6tables-legacy -t raw -S');
    expect(told()).toEqual([
      'ip filter forward 0 accept',
      'ip filter input 0 accept',
      'ip filter output 0 accept',
      'ip6 raw output 0 accept',
      'ip6 raw prerouting 0 accept',
    ]);
  });

  it('have as many rules as were appended, whatever these match, and their policies', () => {
    run(
      'iptables-legacy -N others',
      'iptables-legacy -A others -j DROP',
      'iptables-legacy -A FORWARD -m conntrack --ctstate NEW -m comment --comment x -j others',
      'iptables-legacy -A FORWARD -p tcp -m multiport --dports 1,2,3 -j REJECT',
      'iptables-legacy -P INPUT DROP',
      'iptables-legacy -t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE',
      'ip6tables-legacy -t mangle -A OUTPUT -p udp --dport 53 -j MARK --set-mark 7',
      'ip6tables-legacy -t mangle -P FORWARD DROP',
    );
    expect(told()).toEqual([
      'ip filter forward 2 accept',
      'ip filter input 0 drop',
      'ip filter output 0 accept',
      'ip nat input 0 accept',
      'ip nat output 0 accept',
      'ip nat postrouting 1 accept',
      'ip nat prerouting 0 accept',
      'ip6 mangle forward 0 drop',
      'ip6 mangle input 0 accept',
      'ip6 mangle output 1 accept',
      'ip6 mangle postrouting 0 accept',
      'ip6 mangle prerouting 0 accept',
    ]);
  });

  it('are told of arptables too, where the kernel has them', () => {
    const fd = openNetns(netns);
    if (typeof fd !== 'number') throw new Error(`no netns: ${fd.errno}`);
    // Whoever asks for a table makes it, as arptables-legacy does, which few machines have.
    const refused = insideNetns(fd, () => {
      const socket = openOptions(4);
      if (isFault(socket)) return socket;
      const fault = socket.read(0, 96, infoQuestion('filter', LAYOUTS.arp));
      socket.close();
      return fault;
    });
    closeSync(fd);
    expect(told()).toEqual(
      refused ? [] : ['forward', 'input', 'output'].map((hook) => `arp filter ${hook} 0 accept`),
    );
  });

  it('are of no netns that is not there, or is none', () => {
    run('iptables-legacy -S');
    const found = readLegacyTables([join(folder, 'nothing'), '/etc/hostname', netns]);
    expect(Object.keys(found)).toEqual([netns]);
  });
});
