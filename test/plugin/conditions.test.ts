import { describe, expect, it } from 'vitest';
import { formatRule } from '../../model/nftables.ts';
import { readConditions } from '../../plugin/cni/conditions.ts';
import { refusal } from './refusal.ts';

type Key = Parameters<typeof readConditions>[0];

/** The conditions as nft prints them. */
function textOf(key: Key, words: readonly string[]): string {
  return formatRule({ statements: readConditions(key, words), comment: '' });
}

describe('conditions of host ports', () => {
  it.each<[Key, string[], string]>([
    ['conditionsV4', [], ''],
    ['conditionsV4', [''], ''],
    ['conditionsV4', ['-s', '10.0.0.1'], 'ip saddr 10.0.0.1'],
    ['conditionsV4', ['-s', '10.0.0.1/32'], 'ip saddr 10.0.0.1'],
    ['conditionsV4', ['--source', '10.1.2.3/8'], 'ip saddr 10.0.0.0/8'],
    ['conditionsV4', ['!', '-d', '192.0.2.0/24'], 'ip daddr != 192.0.2.0/24'],
    ['conditionsV4', ['--dst', '0.0.0.0/0'], 'ip daddr 0.0.0.0/0'],
    [
      'conditionsV4',
      ['-i', 'eth0', '!', '--src', '10.0.0.1'],
      'iifname "eth0" ip saddr != 10.0.0.1',
    ],
    ['conditionsV6', ['!', '--in-interface', 'eth0.5'], 'iifname != "eth0.5"'],
    ['conditionsV6', ['-s', '2001:DB8:0::1/64'], 'ip6 saddr 2001:db8::/64'],
    ['conditionsV4', ['ip', 'daddr', '!=', '192.0.2.0/24'], 'ip daddr != 192.0.2.0/24'],
    [
      'conditionsV4',
      ['ip saddr 10.0.0.0/8', 'iifname', '"eth0"'],
      'ip saddr 10.0.0.0/8 iifname "eth0"',
    ],
    ['conditionsV4', ['meta', 'iifname', 'ne', 'eth0'], 'iifname != "eth0"'],
    ['conditionsV6', ['ip6 daddr == 2001:db8::1'], 'ip6 daddr 2001:db8::1'],
    ['conditionsV4', ['iifname', '10.0.0.1'], 'iifname "10.0.0.1"'],
  ])('in %s %j are %j', (key, words, expected) => {
    expect(textOf(key, words)).toBe(expected);
  });

  it.each<[Key, string[], string]>([
    ['conditionsV4', ['-s'], 'conditionsV4: "-s" has no value'],
    ['conditionsV4', ['-s', '!', '10.0.0.1'], 'conditionsV4: "-s" has no value'],
    ['conditionsV4', ['-s', '10.0.0.1', '!'], 'conditionsV4: "!" stands before nothing'],
    ['conditionsV4', ['!', '!', '-s'], 'conditionsV4: "!" stands where an option has to'],
    [
      'conditionsV4',
      ['-s', '10.0.0.1', 'tcp'],
      'conditionsV4: "tcp" stands where an option has to',
    ],
    [
      'conditionsV4',
      ['-s', '10.0.0.1', '--src', '10.0.0.2'],
      'conditionsV4: "--src" is there twice',
    ],
    ['conditionsV4', ['-s', 'fd00::1'], 'conditionsV4: "fd00::1" is no address or prefix of IPv4'],
    [
      'conditionsV4',
      ['-s', '10.0.0.0/33'],
      'conditionsV4: "10.0.0.0/33" is no address or prefix of IPv4',
    ],
    [
      'conditionsV6',
      ['-d', 'localhost'],
      'conditionsV6: "localhost" is no address or prefix of IPv6',
    ],
    ['conditionsV6', ['ip saddr 10.0.0.1'], 'conditionsV6: "ip saddr" is not of IPv6'],
    ['conditionsV4', ['ip', 'saddr', '!='], 'conditionsV4: "!=" has nothing behind it'],
    [
      'conditionsV4',
      ['iifname', 'eth0', 'iifname'],
      'conditionsV4: "iifname" has nothing behind it',
    ],
    [
      'conditionsV4',
      ['-i', 'eth0123456789abcdef'],
      'conditionsV4: "eth0123456789abcdef" cannot be a link name: it has 19 bytes, the kernel takes 15',
    ],
  ])('in %s %j are refused as malformed', (key, words, expected) => {
    expect(refusal(() => readConditions(key, words))).toBe(
      `7 invalid network configuration: ${expected}`,
    );
  });

  it.each<[string[], string]>([
    [['-p', 'tcp'], '-p'],
    [['-m', 'comment', '--comment', 'x'], '-m'],
    [['-o', 'eth0'], '-o'],
    [['--source=10.0.0.1'], '--source=10.0.0.1'],
    [['-s', '10.0.0.1,10.0.0.2'], '10.0.0.1,10.0.0.2'],
    [['-s', '10.0.0.0/255.0.0.0'], '10.0.0.0/255.0.0.0'],
    [['-i', 'eth+'], 'eth+'],
    [['ip saddr { 10.0.0.1 }'], '{'],
    [['ip', 'saddr', '@allowed'], '@allowed'],
    [['ip saddr 10.0.0.1-10.0.0.9'], '10.0.0.1-10.0.0.9'],
    [['iifname "eth*"'], '"eth*"'],
    [['iif', 'eth0'], 'iif'],
    [['tcp', 'sport', '53'], 'tcp'],
    [['ip', 'protocol', 'tcp'], 'ip'],
    [['constructor', 'x'], 'constructor'],
  ])('in %j are refused as not supported', (words, word) => {
    expect(refusal(() => readConditions('conditionsV4', words))).toBe(
      `2 unsupported field: conditionsV4 = ${JSON.stringify(words)} | ${JSON.stringify(word)} is not supported, but these are, each with one address, prefix or name, "!" before it or "!=" in it: -s, -d, -i; ip saddr, ip daddr, iifname`,
    );
  });
});
