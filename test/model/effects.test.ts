import { expect, test } from 'vitest';
import { check } from '../../model/check.ts';
import { desiredOf } from '../../model/desired.ts';
import { parseIfname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import type { EffectOp } from '../../model/op.ts';
import { formatScript } from '../../model/plan-script.ts';
import { formatPlan } from '../../model/plan-text.ts';
import { type Plan, planTo, withEffects } from '../../model/plan.ts';
import { PAIR } from '../conformance/program.ts';
import { addressOps, applyAll } from '../sim/pods.ts';

const IPS = ['10.1.0.5', 'fd00::5'].map(parseIp);
const announce = (ip: (typeof IPS)[0]): EffectOp => ({
  op: 'address.announce',
  netns: 'two',
  ifname: parseIfname('eth0'),
  ip,
  mac: parseMac('02:00:00:00:00:03'),
});
const flush = (ip: (typeof IPS)[0]): EffectOp => ({ op: 'conntrack.flush', netns: 'one', ip });

const BEFORE = applyAll({ netns: {} }, PAIR);
const AFTER = applyAll(BEFORE, addressOps('two', 'eth0', '10.1.0.5/24', 'fd00::5/64'));

function planWith(effects: readonly EffectOp[]): Plan {
  const planning = planTo(BEFORE, desiredOf(AFTER));
  if (!planning.ok) throw new Error(planning.op.op);
  const extended = withEffects(planning.plan, effects);
  if (!extended.ok) throw new Error(`${extended.op.op}: ${extended.fault.errno}`);
  return extended.plan;
}

test('effects are printed last, what draws traffic after the rest', () => {
  const plan = planWith([...IPS.map(announce), ...IPS.map(flush)]);
  expect(formatPlan(plan)).toContain(
    `netns one
  ~ sh -c 'for f in orig-src orig-dst reply-src reply-dst; do conntrack -D --$f 10.1.0.5 || true; done'
  ~ sh -c 'for f in orig-src orig-dst reply-src reply-dst; do conntrack -D -f ipv6 --$f fd00::5 || true; done'
netns two
  ~ arping -U -c 1 -I eth0 10.1.0.5
  ~ ndsend fd00::5 eth0
Plan for Linux 6.18, assumed: 2 to add, 4 to change, 0 to remove.`,
  );
});

test('in a script each line is run in its netns, and a flush never ends it', () => {
  expect(formatScript(planWith([flush(parseIp('10.1.0.5'))]).ops)).toContain(
    "\nnsenter --net='/run/netns/one' -- sh -c 'for f in orig-src orig-dst reply-src reply-dst; do conntrack -D --$f 10.1.0.5 || true; done'\n",
  );
});

test('an effect that the plan does not lead to is refused', () => {
  const planning = planTo(BEFORE, desiredOf(AFTER));
  const op = announce(parseIp('10.1.0.6'));
  expect(planning.ok && withEffects(planning.plan, [op])).toEqual({
    ok: false,
    op,
    fault: { errno: 'EADDRNOTAVAIL', text: '' },
  });
});

test('a host after effects is found to be as it should', () => {
  expect(check(applyAll(AFTER, IPS.map(flush)), desiredOf(AFTER))).toEqual([]);
});
