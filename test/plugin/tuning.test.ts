import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../plugin/cni/config.ts';
import { ALLOW_LIST, type TuningChoices, readTuning, tuningOf } from '../../plugin/cni/tuning.ts';
import { refusal } from './refusal.ts';

const CONFIG = { name: 'net', type: 'cube-cni' };

/** What a pod with link `eth0.5` gets. */
function tuning(
  config: Readonly<Record<string, unknown>>,
  choices: TuningChoices = {},
  allowList?: string,
): unknown {
  return tuningOf(parseConfig({ ...CONFIG, ...config }), choices, 'eth0.5', (path) =>
    path === ALLOW_LIST ? allowList : undefined,
  );
}

describe('tuning', () => {
  it('is nothing where nothing is asked for', () => {
    expect(tuning({})).toBeUndefined();
    expect(tuning({ sysctl: {}, promisc: false, allmulti: false })).toBeUndefined();
  });

  it('names settings by their path, and the link by its name', () => {
    const sysctl = {
      'net.ipv4.conf.IFNAME.arp_filter': '1',
      'net/ipv4/neigh/IFNAME/gc_stale_time': '30',
      'net.core.somaxconn': ' 512 ',
      'net.ipv4.ip_local_port_range': '1024 65000',
    };
    expect(tuning({ sysctl, promisc: true, allmulti: true, txQLen: 0 })).toEqual({
      sysctls: {
        'net/ipv4/conf/eth0.5/arp_filter': '1',
        'net/ipv4/neigh/eth0.5/gc_stale_time': '30',
        'net/core/somaxconn': '512',
        'net/ipv4/ip_local_port_range': '1024\t65000',
      },
      promiscuous: true,
      allMulticast: true,
      txQueueLength: 0,
    });
  });

  it('of args comes before that of the configuration', () => {
    const config = { sysctl: { 'net.core.somaxconn': '1' }, promisc: true, txQLen: 5 };
    const choices = readTuning({
      sysctl: { 'net.core.somaxconn': '2' },
      promisc: false,
      allmulti: true,
      txQLen: 6,
    });
    expect(tuning(config, choices)).toEqual({
      sysctls: { 'net/core/somaxconn': '2' },
      allMulticast: true,
      txQueueLength: 6,
    });
  });

  it.each([
    ['kernel.shm_rmid_forced', 'invalid net sysctl key: "kernel.shm_rmid_forced"'],
    ['net', 'invalid net sysctl key: "net"'],
    ['net/../kernel/domainname', 'invalid net sysctl key: "net/../kernel/domainname"'],
    ['net//core', 'invalid net sysctl key: "net//core"'],
  ])('refuses %s, which is none of the network', (name, problem) => {
    expect(refusal(() => tuning({ sysctl: { [name]: '1' } }))).toBe(
      `7 invalid network configuration: ${problem}`,
    );
  });

  it('refuses one setting by two names', () => {
    const sysctl = { 'net.core.somaxconn': '1', 'net/core/somaxconn': '2' };
    expect(refusal(() => tuning({ sysctl }))).toBe(
      '7 invalid network configuration: duplicated sysctl keys are not allowed: net/core/somaxconn',
    );
  });

  it('lets pass what the allow list has, where there is one', () => {
    const sysctl = { 'net.core.somaxconn': '1' };
    expect(tuning({ sysctl }, {}, '^net.core.somaxconn$\n')).toEqual({
      sysctls: { 'net/core/somaxconn': '1' },
    });
    expect(tuning({ sysctl }, {}, '# of the node\r\n ^net.core.somaxconn$ \r\n')).toBeDefined();
    expect(refusal(() => tuning({ sysctl }, {}, '^net.ipv4\n\n^net.ipv6\n'))).toBe(
      '7 invalid network configuration: sysctl net.core.somaxconn is not allowed | Only the following sysctls are allowed: [^net.ipv4 ^net.ipv6]',
    );
    expect(refusal(() => tuning({ sysctl }, {}, '['))).toBe(
      `7 invalid network configuration: ${ALLOW_LIST}: "[" is no regular expression`,
    );
    // Only for settings.
    expect(tuning({ promisc: true }, {}, '^nothing$')).toEqual({ promiscuous: true });
  });

  it.each([
    [{ promisc: 1 }, 'args.cni.promisc: it must be true or false, not 1'],
    [{ allmulti: 'yes' }, 'args.cni.allmulti: it must be true or false, not "yes"'],
    [{ txQLen: -1 }, 'args.cni.txQLen: it must be a number up to 4294967295, not -1'],
    [{ sysctl: { a: 1 } }, 'args.cni.sysctl: it must be an object of texts, not {"a":1}'],
    [{ sysctl: [] }, 'args.cni.sysctl: it must be an object of texts, not []'],
  ])('refuses %j in args', (raw, problem) => {
    expect(refusal(() => readTuning(raw))).toBe(`7 invalid network configuration: ${problem}`);
  });
});
