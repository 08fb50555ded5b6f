import { type Netns, findNetns, withNetns } from '../host.ts';
import type { Ifname } from '../ifname.ts';
import { type OpKind, done, refuse } from '../op.ts';

/** Makes a named netns: the operation's own `netns`. */
export interface NetnsAdd {}

/** A fresh netns has a loopback link that is down, and nothing else (K-2.1). */
const FRESH_NETNS: Netns = {
  links: {
    lo: {
      kind: 'loopback',
      ifname: 'lo' as Ifname,
      mac: null,
      mtuBytes: 65536,
      up: false,
      promiscuous: false,
      alias: '',
      port: null,
      addresses: [],
      neighbours: [],
    },
  },
  routes: [],
  sysctls: {},
  nftables: {},
};

export const netnsAdd: OpKind<'netns.add'> = {
  apply: (host, op) =>
    findNetns(host, op.netns) ? refuse('EEXIST') : done(withNetns(host, op.netns, FRESH_NETNS)),
  describe: (op) => [`ip netns add ${op.netns}`],
  sign: () => '+',
  reads: () => [],
  writes: (op) => [`netns ${op.netns}`],
  removes: () => [],
};
