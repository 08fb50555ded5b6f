/** From what traffic control does to a link's packets to what is wanted of it. */
import type { DesiredIngress, DesiredTrafficControl } from './desired.ts';
import type { LinkRef } from './link.ts';
import type { StateOp } from './op.ts';
import {
  type IngressQdisc,
  type RootQdisc,
  type TokenBucket,
  type TrafficControl,
  isSameBucket,
} from './traffic-control.ts';

function diffRoot(ref: LinkRef, have: RootQdisc | undefined, want: TokenBucket | null): StateOp[] {
  const isSame =
    want === null ? have === undefined : have?.kind === 'tbf' && isSameBucket(have, want);
  if (isSame) return [];
  return [
    ...(have ? [{ op: 'qdisc.del', ...ref, at: 'root' } as const] : []),
    ...(want ? [{ op: 'qdisc.add', ...ref, qdisc: { kind: 'tbf', ...want } } as const] : []),
  ];
}

function diffIngress(
  ref: LinkRef,
  have: IngressQdisc | undefined,
  want: DesiredIngress | null,
): StateOp[] {
  if (want === null) return have ? [{ op: 'qdisc.del', ...ref, at: 'ingress' }] : [];
  // Null: to a link that is gone, which nobody wants.
  const redirect = have?.redirect;
  const isSame = redirect === (want.redirect ?? undefined);
  const ops: StateOp[] = have ? [] : [{ op: 'qdisc.add', ...ref, qdisc: { kind: 'clsact' } }];
  if (isSame) return ops;
  if (redirect !== undefined) ops.push({ op: 'filter.del', ...ref });
  if (want.redirect !== null) ops.push({ op: 'filter.add', ...ref, redirect: want.redirect });
  return ops;
}

/** The operations between what a link has of it and what is wanted. */
export function diffTrafficControl(
  ref: LinkRef,
  have: TrafficControl = {},
  { root, ingress }: DesiredTrafficControl,
): StateOp[] {
  return [
    ...(root === undefined ? [] : diffRoot(ref, have.root, root)),
    ...(ingress === undefined ? [] : diffIngress(ref, have.ingress, ingress)),
  ];
}
