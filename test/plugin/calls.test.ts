import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { applyPlan } from '../../backends/apply.ts';
import { makeAddress } from '../../model/address.ts';
import { HOST_NETNS, type Host, findLink, findNetns } from '../../model/host.ts';
import type { Ifname } from '../../model/ifname.ts';
import { OWNER_MARK } from '../../model/link.ts';
import { parseMac } from '../../model/mac.ts';
import type { Chain, NftCommand, Ruleset, SetKey, Table } from '../../model/nftables.ts';
import type { Op } from '../../model/op.ts';
import { applyOp } from '../../model/ops.ts';
import { parsePrefixedIp } from '../../model/prefix.ts';
import type { Attachment } from '../../plugin/attachment.ts';
import { add, planAdd } from '../../plugin/call/add.ts';
import { applySaved } from '../../plugin/call/apply.ts';
import { checkCall, findings, planRepair } from '../../plugin/call/check.ts';
import { del, planDel } from '../../plugin/call/del.ts';
import { usesOf } from '../../plugin/call/usage.ts';
import { parseConfig } from '../../plugin/cni/config.ts';
import { CniError } from '../../plugin/cni/error.ts';
import { formatPlanFile, parsePlanFile } from '../../plugin/format/plan-file.ts';
import { gatewayLinks } from '../../plugin/vlan.ts';
import {
  type RawConfig,
  configurations,
  layer2Configurations,
} from '../arbitraries/configuration.ts';
import { machineHosts } from '../arbitraries/machine.ts';
import { PROTOTYPE_NAMES } from '../arbitraries/request.ts';
import { plainState } from '../state.ts';
import {
  type Machine,
  PODS,
  afterOps,
  attachPod,
  makeMachine,
  plainHost,
  requestFor,
  stateOf,
} from './machine.ts';
import { refusal } from './refusal.ts';

// Each run plans and applies several calls.
vi.setConfig({ testTimeout: 60_000 });

/** The group of links by which what a pod sends is limited. */
function groupOf(attachment: Attachment | undefined): number | undefined {
  return attachment?.bandwidth?.ifb?.group;
}

/** A machine with one attachment more than before, or none when ADD was refused, which then must have changed nothing. */
function tryAttach(machine: Machine, raw: RawConfig, pod: number): Attachment | undefined {
  const host = plainState(machine.backend.host());
  const state = stateOf(machine);
  try {
    attachPod(machine, raw, pod);
  } catch (error) {
    expect(error).toBeInstanceOf(CniError);
    expect([7, 100, 101]).toContain((error as CniError).code);
    expect(plainState(machine.backend.host())).toEqual(host);
    expect(stateOf(machine)).toEqual(state);
    return undefined;
  }
  return machine.state.find(requestFor('ADD', raw, pod).key)?.attachment;
}

/**
 * What stays behind when an attachment goes that was the only one: forwarding, on which others may rely
 * by now, and of a bridge of somebody else that it is up, that it once had a port, and that addresses
 * which were to be replaced are gone.
 */
function remains(before: Host, attachment: Attachment, ops: readonly Op[]): Host {
  const { bridge, promiscuous, mtuBytes } = attachment;
  const foreign = findLink(before, { netns: HOST_NETNS, ifname: bridge });
  const forwarding = ops.filter(
    (op) => op.op === 'sysctl.set' && op.netns === HOST_NETNS && op.key.includes('forward'),
  );
  const replaced = ops.filter((op) => op.op === 'address.del' && op.ifname === bridge);
  const probe = {
    ifname: 'probe' as Ifname,
    mac: parseMac('fe:00:00:00:00:01'),
    mtuBytes,
    up: false,
  };
  const peer = { ...probe, netns: attachment.netns };
  const host = { netns: HOST_NETNS, ifname: bridge };
  // The kernel drops the IPv4 routes of a link with its last address (K-3.5), foreign ones too.
  const gateways = ops.flatMap((op) =>
    op.op === 'address.add' && op.ifname === bridge ? [op.address] : [],
  );
  const onBridge: Op[] = [
    { op: 'link.set', ...host, set: { up: true } },
    ...(promiscuous ? [{ op: 'link.set' as const, ...host, set: { promiscuous } }] : []),
    { op: 'link.add', netns: HOST_NETNS, link: { kind: 'veth', ...probe, master: bridge, peer } },
    { op: 'link.del', netns: HOST_NETNS, ifname: probe.ifname },
    ...gateways.map((address): Op => ({ op: 'address.add', ...host, address })),
    ...gateways.map((address): Op => ({ op: 'address.del', ...host, address })),
  ];
  return afterOps(before, [
    ...forwarding,
    ...replaced,
    ...(foreign && attachment.mode !== 'ptp' ? onBridge : []),
  ]);
}

function delPod(machine: Machine, raw: RawConfig, pod: number): void {
  const context = machine.start();
  del(context, requestFor('DEL', raw, pod).key);
  machine.living.delete(context.worker.pid);
}

/** Runs a property and fails when fewer than `least` of its runs came as far as to attach a pod. */
function assertMostly(least: number, property: (attached: () => void) => void): void {
  let count = 0;
  property(() => {
    count += 1;
  });
  expect(count).toBeGreaterThan(least);
}

describe('ADD', () => {
  it('makes what CHECK wants, or changes nothing', () => {
    assertMostly(20, (attached) =>
      fc.assert(
        fc.property(machineHosts(), configurations(), (host, raw) => {
          const machine = makeMachine(host);
          const context = machine.start();
          const request = requestFor('ADD', raw, 0);
          const attachment = tryAttach(machine, raw, 0);
          if (!attachment) return;
          attached();
          expect(findings(context, request.key)).toEqual([]);
          expect(planRepair(context, request.key).plan.ops).toEqual([]);
          expect(machine.state.find(request.key)?.state).toBe('finished');
        }),
        { numRuns: 120 },
      ),
    );
  });

  it('answers what the kernel has', () => {
    fc.assert(
      fc.property(configurations(), fc.constantFrom(0, 1, 2), (raw, pod) => {
        const machine = makeMachine(plainHost());
        const { result } = attachPod(machine, raw, pod);
        const host = machine.backend.host();
        const seen = result.interfaces.map(({ name, sandbox }) => {
          const link = findLink(host, { netns: sandbox ?? HOST_NETNS, ifname: name as Ifname });
          return {
            name,
            mac: link?.mac,
            // That of links which attachments share is not told.
            ...(link?.alias === OWNER_MARK ? {} : { mtu: link?.mtuBytes }),
            ...(sandbox === undefined ? {} : { sandbox }),
          };
        });
        expect(result.interfaces).toEqual(seen);
        const eth0 = findLink(host, { netns: PODS[pod] ?? '', ifname: 'eth0' as Ifname });
        expect(result.ips.map(({ address }) => address).toSorted()).toEqual(
          eth0?.addresses.map(({ ip, prefixLength }) => `${ip}/${prefixLength}`).toSorted(),
        );
        for (const { dst, gw } of result.routes ?? []) {
          const routes = findNetns(host, PODS[pod] ?? '')?.routes ?? [];
          expect(routes).toContainEqual(
            expect.objectContaining({ destination: dst, gateway: gw, device: 'eth0' }),
          );
        }
      }),
    );
  });

  it('of what is there already is refused, and changes nothing', () => {
    fc.assert(
      fc.property(configurations(), configurations(), (raw, other) => {
        const machine = makeMachine(plainHost());
        attachPod(machine, raw, 0);
        const host = machine.backend.host();
        const state = stateOf(machine);
        expect(refusal(() => attachPod(machine, other, 0))).toMatch(
          /^101 attachment net\/c0\/eth0 already exists \| it has .* on veth[0-9a-f]{11}; DEL has to come first$/,
        );
        expect(machine.backend.host()).toBe(host);
        expect(stateOf(machine)).toEqual(state);
      }),
    );
  });

  it('does what its plan said, which itself did nothing', () => {
    assertMostly(20, (attached) =>
      fc.assert(
        fc.property(machineHosts(), configurations(), fc.boolean(), (host, raw, second) => {
          const machine = makeMachine(host);
          if (second) tryAttach(machine, raw, 1);
          const before = machine.backend.host();
          const state = stateOf(machine);
          const request = requestFor('ADD', raw, 0);
          const config = parseConfig(request.config);
          let planned;
          try {
            planned = planAdd(machine.start(), request, config);
          } catch (error) {
            expect(error).toBeInstanceOf(CniError);
          }
          expect(machine.backend.host()).toBe(before);
          expect(stateOf(machine)).toEqual(state);
          if (!planned) {
            expect(tryAttach(machine, raw, 0)).toBeUndefined();
            return;
          }
          // What the plan did not look at can still make the kernel refuse it.
          const refused = planned.plan.ops.reduce<Host | undefined>((at, op) => {
            const outcome = at && applyOp(at, op);
            return outcome?.ok ? outcome.host : undefined;
          }, before);
          if (!refused) return;
          attached();
          const added = attachPod(machine, raw, 0);
          expect(added.plan.ops).toEqual(planned.plan.ops);
          expect(machine.state.find(request.key)?.attachment).toEqual(planned.attachment);
        }),
        { numRuns: 120 },
      ),
    );
  });

  it('planned, saved and applied later is the same ADD', () => {
    fc.assert(
      fc.property(configurations(), (raw) => {
        const at = makeMachine(plainHost());
        const later = makeMachine(plainHost());
        const { result } = attachPod(at, raw, 0);
        const request = requestFor('ADD', raw, 0);
        const planned = planAdd(later.start(), request, parseConfig(request.config));
        const saved = parsePlanFile(formatPlanFile({ verb: 'ADD', ...planned }));
        const applied = applySaved(later.start(), saved);
        expect(applied).toEqual(result);
        expect(plainState(later.backend.host())).toEqual(plainState(at.backend.host()));
        expect(later.state.list().map(({ attachment }) => attachment)).toEqual(
          at.state.list().map(({ attachment }) => attachment),
        );
      }),
    );
  });

  it('opens 127.0.0.0/8 to pods behind the rule that guards it', () => {
    const machine = makeMachine(plainHost());
    const raw = {
      cniVersion: '1.1.0',
      name: 'podnet',
      type: 'cube-cni',
      isGateway: true,
      ipam: { type: 'cube-ipam', subnet: '10.7.0.0/24' },
    };
    attachPod(machine, raw, 0);
    const portMappings = [{ hostPort: 80, containerPort: 80, protocol: 'tcp' }];
    const { plan } = attachPod(machine, { ...raw, runtimeConfig: { portMappings } }, 1);
    const at = (is: (op: Op) => boolean): number => plan.ops.findIndex(is);
    const door = at((op) => op.op === 'sysctl.set' && op.key.endsWith('/route_localnet'));
    const guard = at((op) => op.op === 'nft.batch');
    expect(guard).toBeGreaterThan(-1);
    expect(door).toBeGreaterThan(guard);
  });

  it('saved with a setting that is none of the network is refused', () => {
    const machine = makeMachine(plainHost());
    const request = requestFor(
      'ADD',
      {
        cniVersion: '1.1.0',
        name: 'podnet',
        type: 'cube-cni',
        ipam: { type: 'cube-ipam', subnet: '10.7.0.0/24' },
        sysctl: { 'net.core.somaxconn': '1' },
      },
      0,
    );
    const planned = planAdd(machine.start(), request, parseConfig(request.config));
    const text = formatPlanFile({ verb: 'ADD', ...planned });
    expect(() => parsePlanFile(text)).not.toThrow();
    for (const path of ['kernel/core_pattern', '../../etc/passwd', 'net/../../../etc/passwd'])
      expect(() => parsePlanFile(text.replaceAll('net/core/somaxconn', path))).toThrow(
        'not a plan: attachment.tuning.sysctls',
      );
  });

  it('leaves foreign objects as they are', () => {
    fc.assert(
      fc.property(machineHosts(), configurations(), (host, raw) => {
        const machine = makeMachine(host);
        const attachment = tryAttach(machine, raw, 0);
        if (!attachment) return;
        const after = machine.backend.host();
        const own: readonly string[] = [attachment.bridge, attachment.hostIfname, 'eth0'];
        for (const [name, netns] of Object.entries(host.netns)) {
          const now = findNetns(after, name);
          for (const [ifname, link] of Object.entries(netns.links))
            if (!own.includes(ifname)) expect(now?.links[ifname]).toEqual(link);
          for (const route of netns.routes.filter(
            (r) => !own.includes(r.device ?? '') && r.type !== 'anycast',
          ))
            expect(now?.routes).toContainEqual(route);
          expect(withoutGuests(now?.nftables ?? {})).toMatchObject(netns.nftables);
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe('DEL', () => {
  it('leaves what keeps packets of the pod back, or others from it, until its link is gone', () => {
    fc.assert(
      fc.property(configurations(), (raw) => {
        const machine = makeMachine(plainHost());
        const pods = [0, 1].map((pod) => tryAttach(machine, raw, pod));
        const planned = planDel(machine.start(), requestFor('DEL', raw, 1).key);
        const attachment = pods[1];
        if (!planned || !attachment) return;
        const { ops } = planned.plan;
        const goes = ops.findIndex(
          (op) =>
            (op.op === 'link.del' && op.ifname === attachment.hostIfname) ||
            (op.op === 'group.del' && op.ifnames.includes(attachment.hostIfname)),
        );
        const opens = ops.findIndex((op) => op.op === 'nft.batch');
        expect(goes).toBeGreaterThan(-1);
        const keeps = ['macspoofchk', 'ipspoofchk', 'ingressPolicy'].some((key) => raw[key]);
        if (opens >= 0) expect(opens < goes).toBe(!keeps && raw['podVerdict'] !== 'drop');
      }),
      { numRuns: 100 },
    );
  });

  it('leaves the element by which somebody isolated the pod until its link is gone', () => {
    const raw = { name: 'net', ipam: { type: 'cube-ipam', subnet: '10.9.0.0/24' } };
    const machine = makeMachine(plainHost());
    attachPod(machine, raw, 0);
    const places = (): string[] =>
      planDel(machine.start(), requestFor('DEL', raw, 0).key)
        ?.plan.ops.map(({ op }) => op)
        .filter((op) => op === 'nft.batch' || op === 'link.del') ?? [];
    attachPod(machine, raw, 1);
    expect(places()).toEqual(['nft.batch', 'link.del']);
    const commands = (['delete element', 'add element'] as const).map((word): NftCommand => {
      const of = { family: 'inet', table: 'cube-cni', set: 'pods4' } as const;
      const key = '10.9.0.2' as SetKey;
      return word === 'delete element'
        ? { do: word, ...of, key }
        : { do: word, ...of, element: { key, verdict: { verdict: 'drop' }, comment: '' } };
    });
    machine.backend.replace(
      afterOps(machine.backend.host(), [{ op: 'nft.batch', netns: HOST_NETNS, commands }]),
    );
    expect(places()).toEqual(['link.del', 'nft.batch']);
  });

  it('takes no link of another pod whose group has the same number', () => {
    const raw = {
      name: 'net',
      ipam: { type: 'cube-ipam', subnet: '10.9.0.0/24' },
      runtimeConfig: { bandwidth: { egressRate: 8_000_000, egressBurst: 800_000 } },
    };
    const other = makeMachine(plainHost());
    const group = groupOf(tryAttach(other, raw, 1));
    const machine = makeMachine(plainHost());
    const first = tryAttach(machine, raw, 0);
    if (!first?.bandwidth?.ifb || group === undefined) throw new Error('there is no group');
    const ifb = { ...first.bandwidth.ifb, group };
    const collides: Attachment = { ...first, bandwidth: { ...first.bandwidth, ifb } };
    machine.state.put(collides, machine.start().worker, usesOf(collides));
    machine.state.finish(first.key);
    machine.backend.replace(
      afterOps(
        machine.backend.host(),
        [first.hostIfname, ifb.ifname].map((ifname) => ({
          op: 'link.set',
          netns: HOST_NETNS,
          ifname,
          set: { group },
        })),
      ),
    );
    const before = plainState(machine.backend.host());
    expect(groupOf(tryAttach(machine, raw, 1))).toBeUndefined();
    del(machine.start(), requestFor('DEL', raw, 1).key);
    expect(plainState(machine.backend.host())).toEqual(before);
  });

  it('after ADD leaves nothing of it', () => {
    let foreign = 0;
    assertMostly(20, (attached) =>
      fc.assert(
        fc.property(machineHosts(), configurations(), (host, raw) => {
          const machine = makeMachine(host);
          const request = requestFor('ADD', raw, 0);
          let ops: readonly Op[] = [];
          try {
            ops = planAdd(machine.start(), request, parseConfig(request.config)).plan.ops;
          } catch {
            return;
          }
          const attachment = tryAttach(machine, raw, 0);
          if (!attachment) return;
          attached();
          if (findLink(host, { netns: HOST_NETNS, ifname: attachment.bridge })) foreign += 1;
          delPod(machine, raw, 0);
          expect(plainState(machine.backend.host())).toEqual(
            plainState(remains(host, attachment, ops)),
          );
          expect(stateOf(machine)).toEqual({ records: [], taken: [] });
          for (const { gateway } of attachment.addresses)
            expect(machine.state.isClaimed(`gateway ${attachment.bridge} ${gateway}`)).toBe(false);
        }),
        { numRuns: 150 },
      ),
    );
    expect(foreign).toBeGreaterThan(5);
  });

  it('after ADD is as if neither had been, while another attachment exists', () => {
    assertMostly(10, (attached) =>
      fc.assert(
        fc.property(machineHosts(), configurations(), (host, raw) => {
          const machine = makeMachine(host);
          if (!tryAttach(machine, raw, 1)) return;
          const before = plainState(machine.backend.host());
          const state = stateOf(machine);
          if (!tryAttach(machine, raw, 0)) return;
          attached();
          delPod(machine, raw, 0);
          expect(plainState(machine.backend.host())).toEqual(before);
          expect(stateOf(machine)).toEqual(state);
        }),
        { numRuns: 120 },
      ),
    );
  });

  it('in any order leaves as little as in any other', () => {
    fc.assert(
      fc.property(
        fc.array(configurations(), { minLength: 3, maxLength: 3 }),
        fc.shuffledSubarray([0, 1, 2], { minLength: 3 }),
        (raws, order) => {
          const machine = makeMachine(plainHost());
          const networks = raws.map((raw, i): RawConfig => ({ ...raw, name: `net${i}` }));
          const there = networks.flatMap((raw, i) => (tryAttach(machine, raw, i) ? [i] : []));
          for (const i of order) delPod(machine, networks[i] as RawConfig, i);
          expect(there).toContain(0);
          const { ip_forward: _4, ...links } = plainLinks(machine.backend.host());
          expect(links).toEqual(plainLinks(plainHost()));
          expect(machine.state.list()).toEqual([]);
        },
      ),
    );
  });

  it('again, or of what was never there, does nothing', () => {
    fc.assert(
      fc.property(configurations(), (raw) => {
        const machine = makeMachine(plainHost());
        attachPod(machine, raw, 1);
        const host = machine.backend.host();
        const state = stateOf(machine);
        delPod(machine, raw, 0);
        expect(machine.backend.host()).toBe(host);
        expect(stateOf(machine)).toEqual(state);
        attachPod(machine, raw, 0);
        delPod(machine, raw, 0);
        const after = machine.backend.host();
        delPod(machine, raw, 0);
        expect(machine.backend.host()).toBe(after);
        expect(planDel(machine.start(), requestFor('DEL', raw, 0).key)).toBeUndefined();
      }),
    );
  });

  it('finds what to remove when the netns of the pod is gone', () => {
    fc.assert(
      fc.property(configurations(), (raw) => {
        const machine = makeMachine(plainHost());
        attachPod(machine, raw, 0);
        expect(machine.backend.execute({ op: 'netns.del', netns: PODS[0] })).toBeUndefined();
        const context = machine.start();
        expect(findings(context, requestFor('DEL', raw, 0).key)).toMatchObject([
          { netns: PODS[0], text: 'it does not exist or is not a network namespace' },
        ]);
        delPod(machine, raw, 0);
        const { [PODS[0]]: _gone, ...left } = plainLinks(plainHost());
        expect(plainLinks(machine.backend.host())).toEqual(left);
      }),
    );
  });

  it('leaves somebody else the address that was the gateway before, as it was', () => {
    const mac = parseMac('02:00:00:00:0b:01');
    const ref = { netns: HOST_NETNS, ifname: 'cni0' as Ifname };
    const address = { ...makeAddress(parsePrefixedIp('10.244.1.1/29')), noPrefixRoute: true };
    const end = { ifname: ref.ifname, mac, mtuBytes: 1500, up: true };
    const host = afterOps(plainHost(), [
      { op: 'link.add', netns: HOST_NETNS, link: { kind: 'bridge', ...end } },
      { op: 'address.add', ...ref, address },
    ]);
    const machine = makeMachine(host);
    attachPod(machine, SIMPLE, 0);
    expect(findLink(machine.backend.host(), ref)?.addresses).toEqual([address]);
    expect(findings(machine.start(), requestFor('CHECK', SIMPLE, 0).key)).toEqual([]);
    delPod(machine, SIMPLE, 0);
    expect(findLink(machine.backend.host(), ref)?.addresses).toEqual([address]);
  });

  it('of the last leaves the bridge to what somebody else has plugged in', () => {
    const mac = parseMac('02:00:00:00:00:77');
    const end = { mac, mtuBytes: 1500, up: true };
    const peer = { ...end, ifname: 'foreign-peer' as Ifname, netns: HOST_NETNS };
    const master = 'cni0' as Ifname;
    const plug: Op = {
      op: 'link.add',
      netns: HOST_NETNS,
      link: { kind: 'veth', ...end, ifname: 'foreign' as Ifname, master, peer },
    };
    const machine = makeMachine(plainHost());
    attachPod(machine, SIMPLE, 0);
    machine.backend.replace(afterOps(machine.backend.host(), [plug]));
    delPod(machine, SIMPLE, 0);
    const host = machine.backend.host();
    expect(findLink(host, { netns: HOST_NETNS, ifname: master })).toBeDefined();
    expect(findLink(host, { netns: HOST_NETNS, ifname: 'foreign' as Ifname })?.port?.master).toBe(
      master,
    );
    expect(machine.state.list()).toEqual([]);
    // The next last one takes it along, once nobody is plugged in any more.
    machine.backend.execute({ op: 'link.del', netns: HOST_NETNS, ifname: 'foreign' as Ifname });
    attachPod(machine, SIMPLE, 1);
    delPod(machine, SIMPLE, 1);
    expect(plainLinks(machine.backend.host())).toEqual(plainLinks(plainHost()));
  });

  it('does what its plan said', () => {
    fc.assert(
      fc.property(configurations(), fc.boolean(), (raw, last) => {
        const machine = makeMachine(plainHost());
        attachPod(machine, raw, 0);
        if (!last) attachPod(machine, raw, 1);
        const before = machine.backend.host();
        const planned = planDel(machine.start(), requestFor('DEL', raw, 0).key);
        expect(machine.backend.host()).toBe(before);
        delPod(machine, raw, 0);
        expect(machine.backend.host()).toEqual(afterOps(before, planned?.plan.ops ?? []));
      }),
    );
  });
});

function withoutOwnRules(chain: Chain): Chain {
  const rules = chain.rules.filter(({ comment }) => !comment.startsWith(OWNER_MARK));
  return { ...chain, rules };
}

/** A ruleset without the single rules of ours in chains of others. */
function withoutGuests(ruleset: Ruleset): Ruleset {
  return Object.fromEntries(
    Object.entries(ruleset).map(([key, table]) => {
      const chains = Object.entries(table.chains).map(([name, chain]) => [
        name,
        withoutOwnRules(chain),
      ]);
      return [key, { ...table, chains: Object.fromEntries(chains) as Table['chains'] }];
    }),
  );
}

/** Links, routes and rules by netns, without sysctls. */
function plainLinks(host: Host): Record<string, unknown> {
  const state = plainState(host) as Record<string, { sysctls: unknown }>;
  return Object.fromEntries(
    Object.entries(state).map(([name, { sysctls: _none, ...rest }]) => [name, rest]),
  );
}

/** The links of an attachment with their routes and our table, or everything else. */
function partOf(host: Host, attachment: Attachment, whose: 'own' | 'foreign'): unknown {
  const { bridge, hostIfname, netns: pod, key } = attachment;
  const own: Readonly<Record<string, readonly string[]>> = {
    [HOST_NETNS]: [bridge, hostIfname, ...gatewayLinks(attachment)],
    [pod]: [key.ifname],
  };
  const netns = Object.entries(host.netns).map(([name, { links, routes, nftables, sysctls }]) => {
    const isPart = (ifname: string | null): boolean =>
      (own[name] ?? []).includes(ifname ?? '') === (whose === 'own');
    const part = {
      links: Object.fromEntries(Object.entries(links).filter(([ifname]) => isPart(ifname))),
      // With forwarding, anycast routes come and go on every link.
      routes: routes.filter(({ device, type }) => isPart(device) && type !== 'anycast'),
      nftables: Object.fromEntries(
        Object.entries(nftables).filter(([, t]) => (t.name === 'cube-cni') === (whose === 'own')),
      ),
      sysctls: whose === 'own' ? sysctls : {},
    };
    return [name, part] as const;
  });
  return plainState({ netns: Object.fromEntries(netns) });
}

function sysctl(netns: string, key: string, value: string): Op {
  return { op: 'sysctl.set', netns, key, value };
}

function batch(...commands: readonly NftCommand[]): Op {
  return { op: 'nft.batch', netns: HOST_NETNS, commands };
}

/** Everything of an attachment that somebody could change or take away, change by change. */
function drifts(host: Host, attachment: Attachment): Op[] {
  const { bridge, hostIfname, netns, key } = attachment;
  const mac = parseMac('02:ff:00:00:00:01');
  const link = (ref: { netns: string; ifname: Ifname }): Op[] => [
    { op: 'link.set', ...ref, set: { mac } },
    { op: 'link.set', ...ref, set: { mtuBytes: 1300 } },
    { op: 'link.set', ...ref, set: { up: false } },
    { op: 'link.del', ...ref },
  ];
  const addressesOf = (ref: { netns: string; ifname: Ifname }): Op[] =>
    (findLink(host, ref)?.addresses ?? []).map((address) => ({
      op: 'address.del',
      ...ref,
      address,
    }));
  const end = { netns: HOST_NETNS, ifname: hostIfname };
  const pod = { netns, ifname: key.ifname };
  const onBridge = { netns: HOST_NETNS, ifname: bridge };
  const hairpin = findLink(host, end)?.port?.hairpin ?? false;
  const families = new Set(attachment.addresses.map(({ ip }) => (ip.includes(':') ? 6 : 4)));
  const tables = Object.values(findNetns(host, HOST_NETNS)?.nftables ?? {}).filter(
    ({ name }) => name === 'cube-cni',
  );
  return [
    ...link(end),
    { op: 'link.set', ...end, set: { alias: '' } },
    { op: 'link.set', ...end, set: { master: null } },
    { op: 'port.set', ...end, flag: 'hairpin', on: !hairpin },
    ...link(pod),
    ...addressesOf(pod),
    ...(findNetns(host, netns)?.routes ?? [])
      .filter((r) => r.device === key.ifname && r.table === 254 && r.type === 'unicast')
      .map((route): Op => ({ op: 'route.del', netns, route })),
    { op: 'link.set', ...onBridge, set: { up: false } },
    { op: 'link.set', ...onBridge, set: { alias: '' } },
    { op: 'link.del', ...onBridge },
    ...(attachment.promiscuous
      ? [{ op: 'link.set' as const, ...onBridge, set: { promiscuous: false } }]
      : []),
    ...(attachment.gateway
      ? [
          ...addressesOf(onBridge),
          ...(families.has(4) ? [sysctl(HOST_NETNS, 'net/ipv4/ip_forward', '0')] : []),
          ...(families.has(6) ? [sysctl(HOST_NETNS, 'net/ipv6/conf/all/forwarding', '0')] : []),
        ]
      : []),
    ...(families.has(6)
      ? [
          sysctl(netns, `net/ipv6/conf/${key.ifname}/disable_ipv6`, '1'),
          // A third value, since either of the others may be wanted.
          sysctl(netns, `net/ipv6/conf/${key.ifname}/accept_dad`, '2'),
        ]
      : []),
    ...tables.flatMap(({ family, name: table, chains, sets }): Op[] => {
      const ref = { family, table };
      const elements = Object.values(sets).flatMap((set) =>
        Object.values(set.elements).map((element) => ({ set: set.name, element })),
      );
      return [
        batch({ ...ref, do: 'delete table' }),
        ...Object.keys(chains).map((chain) => batch({ ...ref, do: 'flush chain', chain })),
        ...elements.flatMap(({ set, element }) => [
          batch({ ...ref, do: 'delete element', set, key: element.key }),
          batch(
            { ...ref, do: 'delete element', set, key: element.key },
            {
              ...ref,
              do: 'add element',
              set,
              element: {
                ...element,
                verdict: {
                  verdict: element.verdict?.verdict === 'drop' ? 'accept' : 'drop',
                },
              },
            },
          ),
          batch(
            { ...ref, do: 'delete element', set, key: element.key },
            { ...ref, do: 'add element', set, element: { ...element, comment: 'another' } },
          ),
        ]),
      ];
    }),
  ];
}

describe('CHECK', () => {
  it('finds whatever was changed or taken away, and the repair brings it all back', () => {
    const found = new Map<string, number>();
    fc.assert(
      fc.property(machineHosts(), configurations(), fc.nat(), (host, raw, which) => {
        const machine = makeMachine(host);
        const attachment = tryAttach(machine, { ...raw, bridge: 'cni9' }, 0);
        if (!attachment) return;
        const sound = machine.backend.host();
        const all = drifts(sound, attachment);
        const drift = all[which % all.length] as Op;
        // The kernel makes its route beside that of another link, but nobody else can.
        if (drift.op === 'route.del') {
          const { destination, device } = drift.route;
          const routes = findNetns(sound, drift.netns)?.routes ?? [];
          if (routes.some((r) => r.destination === destination && r.device !== device)) return;
        }
        const outcome = applyOp(sound, drift);
        if (!outcome.ok || outcome.host === sound) return;
        machine.backend.replace(outcome.host);
        const context = machine.start();
        const differences = findings(context, attachment.key);
        expect(differences, JSON.stringify(drift)).not.toEqual([]);
        for (const { repair } of differences) expect(repair).not.toEqual([]);
        expect(machine.backend.host()).toBe(outcome.host);
        const { plan } = planRepair(context, attachment.key);
        const report = applyPlan(machine.backend, plan, undefined, context.clock);
        expect(report.failed).toBeUndefined();
        const repaired = machine.backend.host();
        expect(partOf(repaired, attachment, 'own'), JSON.stringify(drift)).toEqual(
          partOf(sound, attachment, 'own'),
        );
        expect(partOf(repaired, attachment, 'foreign'), JSON.stringify(drift)).toEqual(
          partOf(outcome.host, attachment, 'foreign'),
        );
        expect(findings(context, attachment.key)).toEqual([]);
        found.set(drift.op, (found.get(drift.op) ?? 0) + 1);
      }),
      { numRuns: 400 },
    );
    const kinds = [
      'link.set',
      'link.del',
      'port.set',
      'address.del',
      'route.del',
      'sysctl.set',
      'nft.batch',
    ];
    for (const kind of kinds) expect([kind, found.get(kind) ?? 0]).not.toEqual([kind, 0]);
  });

  it('does not mind what others add', () => {
    fc.assert(
      fc.property(configurations(), (raw) => {
        const machine = makeMachine(plainHost());
        const attachment = (attachPod(machine, raw, 0), machine.state.list()[0]?.attachment);
        if (!attachment) throw new Error('no record');
        const foreign = makeAddress(parsePrefixedIp('198.51.100.7/32'));
        const { bridge, netns, key, hostIfname } = attachment;
        machine.backend.replace(
          afterOps(machine.backend.host(), [
            { op: 'address.add', netns, ifname: key.ifname, address: foreign },
            // With forceAddress an address beside the gateway's is one to be replaced.
            ...(attachment.forceAddress || attachment.mode === 'ptp'
              ? []
              : [
                  {
                    op: 'address.add' as const,
                    netns: HOST_NETNS,
                    ifname: bridge,
                    address: foreign,
                  },
                ]),
            ...(attachment.mode === 'ptp'
              ? []
              : [
                  {
                    op: 'port.set' as const,
                    netns: HOST_NETNS,
                    ifname: hostIfname,
                    flag: 'learning' as const,
                    on: false,
                  },
                ]),
            { op: 'sysctl.set', netns, key: 'net/ipv4/conf/eth0/arp_notify', value: '1' },
          ]),
        );
        expect(findings(machine.start(), key)).toEqual([]);
      }),
    );
  });

  it('wants the result of ADD, and compares its addresses', () => {
    fc.assert(
      fc.property(configurations(), (raw) => {
        const machine = makeMachine(plainHost());
        const { result } = attachPod(machine, raw, 0);
        const check = (prevResult: unknown): void =>
          checkCall(machine.start(), requestFor('CHECK', { ...raw, prevResult }, 0));
        check(result);
        check({ ...result, ips: [...result.ips, { address: '198.51.100.7/32', interface: 0 }] });
        for (const none of [undefined, null])
          expect(refusal(() => check(none))).toBe('7 Required prevResult missing');
        expect(refusal(() => check('x'))).toBe('6 prevResult is not a CNI result');
        const [{ address } = { address: '' }] = result.ips;
        const [link] = result.interfaces;
        const line = `netns "${PODS[0]}": address ${address} of the attachment is not in prevResult`;
        const one = `103 attachment net/c0/eth0 has 1 difference: ${line} | ${line}`;
        expect(refusal(() => check({ ...result, ips: result.ips.slice(1) }))).toBe(one);
        // An address of another link is not the pod's.
        const elsewhere = result.ips.map((ip, i) => (i === 0 ? { ...ip, interface: 0 } : ip));
        expect(
          refusal(() =>
            check({ ...result, interfaces: [link, ...result.interfaces.slice(1)], ips: elsewhere }),
          ),
        ).toBe(one);
      }),
      { numRuns: 50 },
    );
  });

  it('of what is not there is an error of code 3', () => {
    const machine = makeMachine(plainHost());
    const raw = { cniVersion: '1.0.0', name: 'net', prevResult: {} };
    expect(refusal(() => checkCall(machine.start(), requestFor('CHECK', raw, 0)))).toBe(
      '3 there is no attachment net/c0/eth0 | ADD was never called for it, or DEL has removed it',
    );
  });
});

const SIMPLE: RawConfig = {
  cniVersion: '1.0.0',
  name: 'net',
  isGateway: true,
  ipMasq: true,
  ipam: { type: 'cube-ipam', subnet: '10.244.1.0/29', routes: [{ dst: '0.0.0.0/0' }] },
};

/** ADD of a pod, and the error it ends with; the machine must be as before. */
function refusedAdd(
  machine: Machine,
  raw: RawConfig,
  more: Parameters<typeof requestFor>[3] = {},
): string {
  const host = plainState(machine.backend.host());
  const state = stateOf(machine);
  const text = refusal(() => {
    const request = requestFor('ADD', raw, 0, more);
    return add(machine.start(), request, parseConfig(request.config));
  });
  expect(plainState(machine.backend.host())).toEqual(host);
  expect(stateOf(machine)).toEqual(state);
  return text;
}

describe('a call that cannot succeed changes nothing, and says why', () => {
  it('when the netns is not there', () => {
    expect(refusedAdd(makeMachine(plainHost()), SIMPLE, { netns: '/run/netns/nowhere' })).toBe(
      '4 CNI_NETNS "/run/netns/nowhere" does not exist or is not a network namespace',
    );
  });

  it('when the netns is the node itself, by its name in the model', () => {
    expect(refusedAdd(makeMachine(plainHost()), SIMPLE, { netns: 'host' })).toBe(
      `8 plugin's netns and netns from CNI_NETNS should not be the same | host`,
    );
  });

  it('when the netns is the own one', () => {
    const machine = makeMachine(plainHost());
    const context = { ...machine.start(), isOwnNetns: (path: string) => path === PODS[0] };
    const request = requestFor('ADD', SIMPLE, 0);
    const config = parseConfig(request.config);
    for (const call of [add, planAdd])
      expect(refusal(() => call(context, request, config))).toBe(
        `8 plugin's netns and netns from CNI_NETNS should not be the same | ${PODS[0]}`,
      );
    expect(machine.state.list()).toEqual([]);
  });

  it('when the link name is taken in the pod', () => {
    expect(refusedAdd(makeMachine(plainHost()), SIMPLE, { ifname: 'lo' })).toBe(
      `101 link "lo" already exists in netns "${PODS[0]}" | it is a loopback; the attachment needs the name`,
    );
  });

  it('when the bridge name is taken by something else', () => {
    expect(refusedAdd(makeMachine(plainHost()), { ...SIMPLE, bridge: 'uplink' })).toBe(
      '101 link "uplink" already exists but is not a bridge | it is a device',
    );
  });

  it('when the bridge has an address that conflicts', () => {
    const host = afterOps(plainHost(), [
      {
        op: 'link.add',
        netns: HOST_NETNS,
        link: {
          kind: 'bridge',
          ifname: 'cni0' as Ifname,
          mac: parseMac('02:00:00:00:00:01'),
          mtuBytes: 1500,
          up: true,
        },
      },
      {
        op: 'address.add',
        netns: HOST_NETNS,
        ifname: 'cni0' as Ifname,
        address: makeAddress(parsePrefixedIp('10.9.9.1/24')),
      },
    ]);
    expect(refusedAdd(makeMachine(host), SIMPLE)).toBe(
      '101 bridge "cni0" already has address 10.9.9.1/24, which conflicts with 10.244.1.1/29 | with "forceAddress": true it is replaced',
    );
  });

  it('when the name of the host end is taken by a link that is not ours', () => {
    const machine = makeMachine(plainHost());
    const request = requestFor('ADD', SIMPLE, 0);
    const { attachment } = planAdd(machine.start(), request, parseConfig(request.config));
    const { hostIfname } = attachment;
    const mac = parseMac('02:00:00:00:00:09');
    const taken = makeMachine(
      afterOps(plainHost(), [
        {
          op: 'link.add',
          netns: HOST_NETNS,
          link: { kind: 'bridge', ifname: hostIfname, mac, mtuBytes: 1500, up: true },
        },
      ]),
    );
    expect(refusedAdd(taken, SIMPLE)).toBe(
      `101 link "${hostIfname}" already exists and is not ours | it is a bridge; the attachment needs the name`,
    );
  });

  it('when all addresses are given', () => {
    const machine = makeMachine(plainHost());
    const raw = { ...SIMPLE, ipam: { type: 'cube-ipam', subnet: '10.244.1.0/29' } };
    for (let i = 0; i < 5; i += 1) {
      const request = requestFor('ADD', raw, 0, { containerId: `c${i + 10}`, ifname: `eth${i}` });
      add(machine.start(), request, parseConfig(request.config)).finish();
    }
    expect(refusedAdd(machine, SIMPLE)).toBe(
      '102 no IP addresses available in range set 0: 10.244.1.1-10.244.1.6',
    );
  });

  it('when the MTU is too small for IPv6', () => {
    const raw = { ...SIMPLE, mtu: 1279, ipam: { type: 'cube-ipam', subnet: 'fd00::/64' } };
    expect(refusedAdd(makeMachine(plainHost()), raw)).toBe(
      '7 an MTU of 1279 is too small for IPv6, which needs 1280',
    );
  });

  it('when the kernel would refuse it', () => {
    const routes = [{ dst: '192.0.2.0/24', gw: '203.0.113.1' }];
    const raw = { ...SIMPLE, ipam: { type: 'cube-ipam', subnet: '10.244.1.0/29', routes } };
    expect(refusedAdd(makeMachine(plainHost()), raw)).toBe(
      `100 Cannot do "ip route add 192.0.2.0/24 via 203.0.113.1 dev eth0 proto 201" in netns "${PODS[0]}": ENETUNREACH, "Nexthop has invalid gateway" | the plan was not begun`,
    );
  });

  it('when what would be repaired has the name of something foreign', () => {
    const machine = makeMachine(plainHost());
    attachPod(machine, SIMPLE, 0);
    machine.backend.replace(
      afterOps(machine.backend.host(), [
        { op: 'link.del', netns: HOST_NETNS, ifname: 'cni0' as Ifname },
      ]),
    );
    const host = machine.backend.host();
    const uplink = findLink(host, { netns: HOST_NETNS, ifname: 'uplink' as Ifname });
    const netns = findNetns(host, HOST_NETNS);
    if (!uplink || !netns) throw new Error('no uplink');
    const renamed = { ...uplink, ifname: 'cni0' as Ifname };
    machine.backend.replace({
      netns: {
        ...host.netns,
        [HOST_NETNS]: { ...netns, links: { ...netns.links, cni0: renamed } },
      },
    });
    const key = requestFor('CHECK', SIMPLE, 0).key;
    expect(findings(machine.start(), key)[0]?.text).toBe(
      'link "cni0" is another one than it should be',
    );
    expect(refusal(() => planRepair(machine.start(), key))).toBe(
      '101 link "cni0" already exists but is not a bridge | it is a device',
    );
  });
});

describe('names that mean something to JavaScript', () => {
  it.each(PROTOTYPE_NAMES)(
    '%s is a link, a bridge, a container and a network like any other',
    (name) => {
      const word = name.replaceAll('_', '');
      const raw = { ...SIMPLE, bridge: name, name: word };
      const machine = makeMachine(plainHost());
      const request = requestFor('ADD', raw, 0, { ifname: name, containerId: word });
      add(machine.start(), request, parseConfig(request.config)).finish();
      expect(findings(machine.start(), request.key)).toEqual([]);
      const host = machine.backend.host();
      expect(Object.keys(findNetns(host, PODS[0])?.links ?? {})).toEqual(['lo', name]);
      expect(Object.keys(findNetns(host, HOST_NETNS)?.links ?? {})).toContain(name);
      del(machine.start(), request.key);
      expect(plainLinks(machine.backend.host())).toEqual(plainLinks(plainHost()));
      expect(machine.state.list()).toEqual([]);
    },
  );
});

describe('a network without addresses', () => {
  it('gives links: CHECK finds nothing after ADD, and DEL leaves nothing', () => {
    fc.assert(
      fc.property(layer2Configurations(), fc.boolean(), (raw, another) => {
        const machine = makeMachine(plainHost());
        if (another) attachPod(machine, raw, 1);
        const before = plainState(machine.backend.host());
        const { result } = attachPod(machine, raw, 0);
        expect(result).toMatchObject({ ips: [], routes: [] });
        const eth0 = findLink(machine.backend.host(), {
          netns: PODS[0],
          ifname: 'eth0' as Ifname,
        });
        expect(eth0).toMatchObject({
          kind: 'veth',
          up: raw['disableContainerInterface'] !== true,
          addresses: [],
        });
        checkCall(machine.start(), requestFor('CHECK', { ...raw, prevResult: result }, 0));
        delPod(machine, raw, 0);
        expect(plainState(machine.backend.host())).toEqual(before);
      }),
    );
  });

  it('cannot be answered in versions whose results hold nothing but addresses', () => {
    for (const cniVersion of ['0.1.0', '0.2.0'])
      expect(
        refusal(() => attachPod(makeMachine(plainHost()), { cniVersion, name: 'net' }, 0)),
      ).toBe('7 cannot convert: no valid IP addresses');
  });
});

function addressOf({ result }: ReturnType<typeof attachPod>): string | undefined {
  return result.ips[0]?.address;
}

describe('addresses that were given back', () => {
  const raw = {
    cniVersion: '1.0.0',
    name: 'net',
    isGateway: true,
    ipam: { type: 'cube-ipam', subnet: '10.244.1.0/29', reuseDelaySeconds: 60 },
  };

  it('are not handed out again before the delay is over, and then announced', () => {
    const machine = makeMachine(plainHost());
    for (let at = 2; at <= 6; at += 1) {
      expect(addressOf(attachPod(machine, raw, 0))).toBe(`10.244.1.${at}/29`);
      delPod(machine, raw, 0);
      machine.timeMs += 1000;
    }
    expect(refusal(() => attachPod(machine, raw, 0))).toMatch(/^102 no IP addresses available/);
    machine.timeMs += 55_500;
    const { plan, ...added } = attachPod(machine, raw, 0);
    expect(addressOf({ plan, ...added })).toBe('10.244.1.2/29');
    expect(plan.ops.slice(-2)).toMatchObject([
      { op: 'conntrack.flush', netns: 'host', ip: '10.244.1.2' },
      { op: 'address.announce', netns: PODS[0], ifname: 'eth0', ip: '10.244.1.2' },
    ]);
    expect(refusal(() => attachPod(machine, raw, 1))).toMatch(/^102 /);
  });

  it('may be asked for by name all the same', () => {
    const machine = makeMachine(plainHost());
    attachPod(machine, raw, 0);
    delPod(machine, raw, 0);
    const asked = { ...raw, runtimeConfig: { ips: ['10.244.1.2'] } };
    expect(addressOf(attachPod(machine, asked, 0))).toBe('10.244.1.2/29');
  });

  it('count for nothing where nobody had them: their ADD has no effects', () => {
    const { plan } = attachPod(makeMachine(plainHost()), raw, 0);
    expect(plan.ops.map(({ op }) => op)).not.toContain('address.announce');
    expect(plan.ops.map(({ op }) => op)).not.toContain('conntrack.flush');
  });
});
