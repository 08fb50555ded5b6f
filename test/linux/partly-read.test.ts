/** What of a host is read only in part: where a ping contradicts a trace, the trace had said that it did not know. */
import { spawnSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { makeLinuxBackend } from '../../backends/linux/linux.ts';
import { parseIp } from '../../model/ip.ts';
import { WHOLE, readWhole } from '../../plugin/process/whole-host.ts';
import { type Journey, travel } from '../../sim/journey.ts';
import { makeWorld } from '../../sim/world.ts';
import { type RoutedHost, buildHost } from '../packets/routed-kernel.ts';
import { requirement } from '../requirements.ts';
import { ROUTED_SENDERS } from '../sim/hosts.ts';

describe.skipIf(requirement('root', 'iproute2', 'busybox'))('what is read in part', () => {
  let host: RoutedHost;
  beforeEach(() => {
    host = buildHost();
  });
  afterEach(() => host.tearDown());

  const real = (netns: string): string => host.places.real(netns);

  /** Commands in a netns, words split at spaces. */
  function change(netns: string, ...commands: readonly string[]): void {
    for (const command of commands) {
      const words = ['netns', 'exec', real(netns), ...command.split(' ')];
      const { status, stderr } = spawnSync('ip', words, { encoding: 'utf8' });
      expect(status, `${command}: ${stderr}`).toBe(0);
    }
  }

  function isAnswered(netns: string, to: string): boolean {
    const family = to.includes(':') ? '-6' : '-4';
    const ping = ['busybox', 'ping', family, '-c', '1', '-W', '1', to];
    return spawnSync('ip', ['netns', 'exec', real(netns), ...ping]).status === 0;
  }

  /** How many echo requests came to a netns. */
  function echoesAt(netns: string, isIpv6: boolean): number {
    const name = isIpv6 ? 'Icmp6InEchos' : 'IcmpInEchos';
    const words = ['netns', 'exec', real(netns), 'nstat', '-asz', name];
    const { stdout } = spawnSync('ip', words, { encoding: 'utf8' });
    return Number(new RegExp(`^${name}\\s+(\\d+)`, 'm').exec(stdout)?.[1]);
  }

  function traced(netns: string, to: string): Journey {
    const backend = makeLinuxBackend(WHOLE);
    const whole = readWhole(backend, ROUTED_SENDERS.map(real));
    backend.close();
    const world = makeWorld(whole.host, whole.legacyTables);
    return travel(world, { netns: real(netns), destination: parseIp(to) });
  }

  /** Ping and trace say the same. */
  function agrees(netns: string, to: string, answered: boolean): void {
    const { reachable } = traced(netns, to);
    expect([to, isAnswered(netns, to)]).toEqual([to, answered]);
    expect([to, reachable.back]).toEqual([to, answered]);
  }

  const C4 = '10.244.2.4';
  const C6 = 'fd00:2::4';

  it.each([
    { rule: 'ipproto icmp blackhole', is: 'ipproto icmp blackhole', answered: false },
    { rule: 'ipproto tcp blackhole', is: 'ipproto tcp blackhole', answered: true },
    { rule: 'dport 53 ipproto udp prohibit', is: 'ipproto udp dport 53 prohibit', answered: true },
    { rule: 'uidrange 0-0 blackhole', is: 'uidrange 0-0 blackhole', answered: false },
    { rule: 'tos 0x10 blackhole', is: 'tos 0x10 blackhole', answered: true },
  ])('is whether a rule fits: $rule', ({ rule, is, answered }) => {
    change('node', `ip rule add pref 50 ${rule}`);
    const { verdict, reachable } = traced('a', C4);
    expect(isAnswered('a', C4)).toBe(answered);
    expect(reachable).toEqual({ there: null, back: null });
    expect(verdict).toMatchObject({
      kind: 'unknown',
      netns: real('node'),
      text: `whether rule 50 (${is}) fits is not known`,
    });
    // Of the other family nothing is said, nor of what is the same either way.
    agrees('a', C6, true);
    agrees('a', '10.244.1.3', true);
  });

  it.each([
    { key: 'net.ipv4.icmp_echo_ignore_all', to: C4 },
    { key: 'net.ipv6.icmp.echo_ignore_all', to: C6 },
  ])('is not whether echoes are ignored: $key', ({ key, to }) => {
    change('c', `sysctl -qw ${key}=1`, 'ip link set lo up');
    agrees('a', to, false);
    agrees('c', to, false);
    agrees('a', to === C4 ? C6 : C4, true);
    expect(traced('a', to).cause).toMatchObject({ netns: real('c'), object: `sysctl ${key}` });
  });

  /** A chain of nft in `node` that drops what it sees. */
  function dropBy(table: string, hook: string, rule: string): void {
    const commands = [
      `add table ${table}`,
      `add chain ${table} c { type filter hook ${hook} priority 0; policy accept; }`,
      `add rule ${table} c ${rule}`,
    ];
    for (const command of commands) {
      const words = ['netns', 'exec', real('node'), 'nft', command];
      const { status, stderr } = spawnSync('ip', words, { encoding: 'utf8' });
      expect(status, `${command}: ${stderr}`).toBe(0);
    }
  }

  describe.skipIf(requirement('nftables'))('are tables of nft', () => {
    it.each([
      {
        table: 'netdev f',
        hook: 'ingress device "v-a"',
        rule: 'ip protocol icmp drop',
        passed: 'ingress',
      },
      {
        table: 'netdev f',
        hook: 'egress device "v-c"',
        rule: 'ip protocol icmp drop',
        passed: 'egress',
      },
      {
        table: 'inet f',
        hook: 'ingress device "cni0"',
        rule: 'ip protocol icmp drop',
        passed: 'ingress',
      },
      { table: 'arp f', hook: 'input', rule: 'drop', passed: 'input' },
    ])('of which a packet passes one: $table $hook', ({ table, hook, rule, passed }) => {
      dropBy(table, hook, rule);
      const { reachable, unread, verdict } = traced('a', C4);
      expect(isAnswered('a', C4)).toBe(false);
      expect(verdict.kind).toBe('delivered');
      expect(reachable.back).toBe(null);
      expect(unread).toMatchObject([
        { netns: real('node'), object: `table ${table}`, hooks: [passed] },
      ]);
    });

    it('of which no packet passes any', () => {
      // Of these none comes by that link; what an ifb gives back is not shown to them any more.
      dropBy('netdev f', 'ingress device "v-b"', 'drop');
      dropBy('netdev g', 'ingress device "v-c"', 'drop');
      dropBy('inet h', 'ingress device "v-d"', 'drop');
      dropBy('arp i', 'input', 'iifname "v-d" drop');
      change('node', 'nft flush chain arp i c');
      expect(traced('a', C4).unread).toEqual([]);
      agrees('a', C4, true);
    });
  });

  describe.each([
    { many: '10.99.0.9', hops: ['10.244.2.4', '10.244.3.2'] },
    { many: 'fd99::9', hops: ['fd00:2::4', 'fd00:3::2'] },
  ])('are routes by several next hops: $many', ({ many, hops: [c = '', d = ''] }) => {
    const length = many.includes(':') ? 128 : 32;
    const add = (netns: string): void =>
      change(netns, `ip address add ${many}/${length} dev eth0${length === 128 ? ' nodad' : ''}`);

    it('where both lead there, and where one does', () => {
      add('c');
      add('d');
      const both = `nexthop via ${c} dev cni1 nexthop via ${d} dev v-d`;
      change('node', `ip route add ${many}/${length} ${both}`);
      agrees('a', many, true);
      agrees('node', many, true);
      const words = traced('a', many).forward.map(({ decision }) => decision);
      expect(words.filter((text) => text.includes('one of 2 next hops'))).toHaveLength(1);

      change('d', `ip address del ${many}/${length} dev eth0`);
      const { verdict, reachable } = traced('a', many);
      expect(reachable).toEqual({ there: null, back: null });
      expect(verdict).toMatchObject({ kind: 'unknown', netns: real('node') });

      // Nothing takes a way by a link that is down.
      change('node', 'ip link set v-d down');
      agrees('a', many, true);
    });

    it('of a group of next hops', () => {
      add('c');
      add('d');
      change(
        'node',
        `ip nexthop add id 1 via ${c} dev cni1`,
        `ip nexthop add id 2 via ${d} dev v-d`,
        'ip nexthop add id 3 group 1/2',
        `ip route add ${many}/${length} nhid 3`,
      );
      agrees('a', many, true);
      expect(traced('node', many).forward[0]?.decision).toContain('one of 2 next hops');
    });

    it('where a sender may come by any of them', () => {
      add('d');
      change(
        'node',
        `ip route add ${many}/${length} nexthop via ${c} dev cni1 nexthop via ${d} dev v-d`,
        'sysctl -qw net.ipv4.conf.all.rp_filter=1',
      );
      const backend = makeLinuxBackend(WHOLE);
      const whole = readWhole(backend, ROUTED_SENDERS.map(real));
      backend.close();
      const request = { netns: real('d'), source: parseIp(many), destination: parseIp(c) };
      const { reachable } = travel(makeWorld(whole.host, whole.legacyTables), request);
      // It gets there, and its answer goes to one of them, of whom the other does not wait for it.
      expect(reachable).toEqual({ there: true, back: null });
      const ping = ['busybox', 'ping', '-c', '1', '-W', '1', '-I', many, c];
      spawnSync('ip', ['netns', 'exec', real('d'), ...ping]);
      expect(echoesAt('c', length === 128)).toBe(1);
    });
  });

  it.each([
    { rule: 'not from 10.244.1.0/24 blackhole', there: true, answered: false },
    { rule: 'not from 10.244.0.0/16 blackhole', there: true, answered: true },
    { rule: 'goto 60', there: true, answered: true },
    { rule: 'lookup main suppress_prefixlength 24', there: false, answered: false },
    { rule: 'lookup main suppress_prefixlength 23', there: true, answered: true },
  ])('is not what is followed: $rule', ({ rule, there, answered }) => {
    change('node', `ip rule add pref 50 ${rule}`, 'ip rule add pref 70 lookup main');
    if (rule.startsWith('goto'))
      change('node', 'ip rule add pref 55 blackhole', 'ip rule add pref 60 lookup main');
    if (rule.includes('suppress')) change('node', 'ip rule add pref 60 prohibit');
    agrees('a', C4, answered);
    expect(traced('a', C4).reachable.there).toBe(there);
  });
});
