/** What `check` says of hosts: nothing of those that calls have made, and of those beside other software only what is so. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HOST_NETNS, type Host } from '../../model/host.ts';
import { formatKey } from '../../plugin/attachment.ts';
import { del } from '../../plugin/call/del.ts';
import { recordFindings } from '../../plugin/check/records.ts';
import { CniError } from '../../plugin/cni/error.ts';
import { findingsOf } from '../../sim/findings/all.ts';
import type { RawConfig } from '../arbitraries/configuration.ts';
import { histories } from '../arbitraries/history.ts';
import { type Machine, attachPod, makeMachine, plainHost, requestFor } from './machine.ts';

const POD_NETWORK: RawConfig = {
  cniVersion: '1.0.0',
  name: 'net',
  type: 'cube-cni',
  bridge: 'cni0',
  isDefaultGateway: true,
  ipMasq: true,
  ipam: { type: 'cube-ipam', ranges: [[{ subnet: '10.7.0.0/24' }], [{ subnet: 'fd07::/64' }]] },
};

function networks(): fc.Arbitrary<readonly RawConfig[]> {
  return histories(1).map((history) => history.networks);
}

/** Does somebody answer for the gateways of the network's pods? */
function hasGateway(raw: RawConfig): boolean {
  return raw['isGateway'] === true || raw['isDefaultGateway'] === true || raw['mode'] === 'ptp';
}

interface Step {
  readonly isAdd: boolean;
  readonly pod: number;
  readonly network: number;
}

function steps(): fc.Arbitrary<Step[]> {
  const step = fc.record({ isAdd: fc.boolean(), pod: fc.nat(2), network: fc.nat(2) });
  const first = [0, 1].map((pod) => ({ isAdd: true, pod, network: 0 }));
  return fc.array(step, { minLength: 2, maxLength: 4 }).map((more) => [...first, ...more]);
}

/** Lets calls happen, and looks at the host after each of them. Answers how many attachments there were at most. */
function live(
  all: readonly RawConfig[],
  history: readonly Step[],
  look: (machine: Machine, attached: ReadonlyMap<number, RawConfig>) => void,
): number {
  const machine = makeMachine(plainHost('as Linux makes them'));
  const attached = new Map<number, RawConfig>();
  let most = 0;
  for (const { isAdd, pod, network } of history) {
    const had = attached.get(pod);
    const raw = all[network % all.length];
    if (had && !isAdd) {
      del(machine.start(), requestFor('DEL', had, pod).key);
      attached.delete(pod);
    } else if (!had && raw) {
      try {
        attachPod(machine, raw, pod);
        attached.set(pod, raw);
      } catch (error) {
        // Of networks that cannot be side by side the second is refused.
        expect(error).toBeInstanceOf(CniError);
      }
    }
    most = Math.max(most, attached.size);
    look(machine, attached);
  }
  return most;
}

describe('a host on which only calls were made', () => {
  it('has a link for each record, and no error but gateways that a configuration makes nobody', () => {
    let most = 0;
    fc.assert(
      fc.property(networks(), steps(), (all, history) => {
        const reached = live(all, history, ({ backend, state }, attached) => {
          expect(recordFindings(backend.host(), state.list(), () => false)).toEqual([]);
          const found = findingsOf(backend.host());
          const pods = [...attached].filter(([, raw]) => !hasGateway(raw)).map(([pod]) => pod);
          const errors = found.filter(({ severity }) => severity === 'error');
          expect(errors.filter(({ kind }) => kind !== 'gateway')).toEqual([]);
          for (const { netns } of errors)
            expect(pods.map((pod) => `/run/netns/pod${pod}`)).toContain(netns);
        });
        most = Math.max(most, reached);
      }),
      { numRuns: 8 },
    );
    expect(most).toBeGreaterThan(1);
  });
});

function attachOne(): { machine: Machine; host: Host; hostIfname: string } {
  const machine = makeMachine(plainHost());
  attachPod(machine, POD_NETWORK, 0);
  const [record] = machine.state.list();
  if (!record) throw new Error('there is no record');
  return { machine, host: machine.backend.host(), hostIfname: record.attachment.hostIfname };
}

describe('records and links', () => {
  it('are named where one has not the other', () => {
    const { machine, host, hostIfname } = attachOne();
    const records = machine.state.list();
    const [record] = records;
    expect(recordFindings(host, [], () => false)).toMatchObject([
      { kind: 'link-without-record', netns: HOST_NETNS, object: `link ${hostIfname}` },
    ]);
    const empty = plainHost();
    expect(recordFindings(empty, records, () => false)).toMatchObject([
      {
        kind: 'record-without-link',
        object: `record ${record ? formatKey(record.attachment.key) : ''}`,
        evidence: ['finished, pod in /run/netns/pod0', 'has 10.7.0.2/24', 'has fd07::2/64'],
        mend: ['cube-cni ipam release 10.7.0.2 --config CONFIG'],
      },
    ]);
  });

  it('may be without each other while a call works on them', () => {
    const { machine } = attachOne();
    const pending = machine.state.list().map((each) => ({ ...each, state: 'pending' as const }));
    expect(recordFindings(plainHost(), pending, () => true)).toEqual([]);
    expect(recordFindings(plainHost(), pending, () => false)).toHaveLength(1);
  });
});
