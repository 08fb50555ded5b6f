/** What is said of an end, whatever its reason. */
import { describe, expect, it } from 'vitest';
import type { Ifname } from '../../model/ifname.ts';
import { parseIp } from '../../model/ip.ts';
import { causeOf } from '../../sim/blame/cause-of.ts';
import { formatCause } from '../../sim/cause.ts';
import type { DropReason } from '../../sim/reason.ts';
import { makeWorld } from '../../sim/world.ts';
import { ROUTED } from './hosts.ts';

/** What is said where it happens. One reason more is an error of `tsc` here. */
const TEXTS: Readonly<Record<DropReason, readonly string[]>> = {
  OTHERHOST: ['the frame is for 02:00:00:00:00:77, cni0 is 02:00:00:00:00:01'],
  IP_INHDR: ['the TTL is used up', '::1 came in by a link'],
  NETFILTER_DROP: ['rule 1 of chain ip nat post, masquerade: node has no address for it'],
  IP_RPFILTER: ['rp_filter is 1, and there is no route back to 10.1.1.1'],
  IP_OUTNOROUTES: ['ENETUNREACH: no route to 10.1.1.1'],
  IP_INNOROUTES: ['no route to 10.1.1.1'],
  IP_INADDRERRORS: [
    '10.1.1.1 is not an address of this netns, and cni0 does not forward',
    'fe80::2 is not valid beyond its link',
  ],
  IP_LOCAL_SOURCE: ['10.244.1.1 is an address of this netns'],
  IP_INVALID_SOURCE: ['0.0.0.1 is no host'],
  IP_INVALID_DEST: [':: is no host'],
  IP_LOCALNET: ['127.0.0.1 came in by cni0'],
  IPV6DISABLED: ['IPv6 is off on cni0'],
  UNICAST_IN_L2_MULTICAST: ['only frames for this link are forwarded'],
  INVALID_PROTO: ['10.244.1.255 is a broadcast address here'],
  ECHO_IGNORED: ['net.ipv4.icmp_echo_ignore_all is 1'],
  NEIGH_FAILED: ['nobody answers for 10.244.1.9'],
  FRAG_REASM_TIMEOUT: ['the rest of its packet does not come'],
  PKT_TOO_BIG: ['2028 bytes, and the mtu is 1500'],
  FRAME_TOO_BIG: ['2028 bytes, and port v-a has mtu 1500'],
  QDISC_DROP: ['cni0 is down', 'cni0 has no carrier'],
  TC_INGRESS: ['redirected to ifb0 that is down', 'redirected to a link that is gone'],
  MAC_INVALID_SOURCE: ['01:00:00:00:00:01 is no source address'],
  BRIDGE_INGRESS_STP_STATE: ['bridge cni0 is down', 'port v-a has no carrier'],
  NO_TX_TARGET: ['02:00:00:00:00:77 is not known, and no port forwards'],
  VXLAN_NO_REMOTE: ['cni0 was not told where 02:00:00:00:00:77 is'],
  VXLAN_VNI_NOT_FOUND: ['no vxlan here has network 7 on port 4789'],
  VXLAN_ENTRY_EXISTS: [
    '02:00:00:00:00:77 comes from 10.0.0.1, and cni0 was told that it is at 10.0.0.2',
  ],
  LOCAL_MAC: ['it comes from 02:00:00:00:00:01, which is cni0 itself'],
  NO_SOCKET: [
    'it comes from 10.244.1.3, and 10.96.0.20 was asked',
    'nobody in node waits for this reply',
    'nobody in node has answered to such a connection',
  ],
  IFB_OWN: ['it was not redirected here'],
  BRIDGE_ISOLATED: ['ports v-a and v-b are isolated'],
  BRIDGE_VLAN: ['port v-a is no member of VLAN 7'],
  BRIDGE_SAME_PORT: ['v-a is where it came in, and no hairpin'],
  BRIDGE_PORT_DOWN: ['port v-a is down or has no carrier'],
  SOCKET_REFUSED: [
    'EINVAL: fe80::9 is on which link?',
    'EADDRNOTAVAIL: 10.1.1.1 is no address of node',
    'EADDRNOTAVAIL: no source address',
  ],
  LOOP: ['this very frame came by 20 times before'],
  STEP_LIMIT: ['not done after 20000 steps'],
};

const ALL = Object.entries(TEXTS).flatMap(([reason, texts]) =>
  texts.map((text) => [reason as DropReason, text] as const),
);

function sentence(reason: DropReason, text: string, link: string | null): string {
  const world = makeWorld(ROUTED);
  const request = { netns: 'a', destination: parseIp('10.244.2.4') };
  const at = { netns: 'node', link: link as Ifname | null };
  return formatCause(
    causeOf({ world, request, hops: [] }, { kind: 'dropped', reason, text, ...at }),
  );
}

/** Any three words in a row that come twice. */
function repeated(text: string): string[] {
  const words = text.split(' ');
  const threes = words.slice(2).map((_, at) => words.slice(at, at + 3).join(' '));
  return threes.filter((each, at) => threes.indexOf(each) !== at);
}

describe('a cause', () => {
  it.each(ALL)('is a sentence where it is %s: %s', (reason, text) => {
    // These alone come to an end before there is a link.
    const isEarly = reason === 'SOCKET_REFUSED' || reason === 'IP_OUTNOROUTES';
    for (const link of isEarly ? ['cni0', null] : ['cni0']) {
      const said = sentence(reason, text, link);
      expect(said).toMatch(/^netns node: \w.* [a-z]+ .*[^.]$/);
      expect(said).not.toMatch(/undefined|null|netns node: netns|\(.*[ ].*\)|: .*: .*: .*: /);
      expect(repeated(said)).toEqual([]);
    }
  });

  it('reads so', () => {
    expect(ALL.map(([reason, text]) => sentence(reason, text, 'cni0'))).toMatchInlineSnapshot(`
      [
        "netns node: link cni0 does not take the frame in: the frame is for 02:00:00:00:00:77, cni0 is 02:00:00:00:00:01",
        "netns node: packet does not go on at link cni0: the TTL is used up",
        "netns node: packet does not go on at link cni0: ::1 came in by a link",
        "netns node: netfilter drops the packet at link cni0: rule 1 of chain ip nat post, masquerade: node has no address for it",
        "netns node: sysctl net.ipv4.conf.cni0.rp_filter is 1, and there is no route back to 10.1.1.1",
        "netns node: routes lead nowhere at link cni0: no route to 10.1.1.1 (ENETUNREACH)",
        "netns node: routes lead nowhere at link cni0: no route to 10.1.1.1",
        "netns node: packet is not passed on at link cni0: 10.1.1.1 is not an address of this netns, and cni0 does not forward",
        "netns node: packet is not passed on at link cni0: fe80::2 is not valid beyond its link",
        "netns node: packet is not taken in from outside at link cni0: 10.244.1.1 is an address of this netns",
        "netns node: packet may not come from there at link cni0: 0.0.0.1 is no host",
        "netns node: packet may not go there at link cni0: :: is no host",
        "netns node: sysctl net.ipv4.conf.cni0.route_localnet is 0, and 127.0.0.1 came in by cni0",
        "netns node: sysctl net.ipv6.conf.cni0.disable_ipv6 is 1: IPv6 is off on cni0",
        "netns node: packet is not passed on at link cni0: only frames for this link are forwarded",
        "netns node: packet is answered by nobody at link cni0: 10.244.1.255 is a broadcast address here",
        "netns node: sysctl net.ipv4.icmp_echo_ignore_all is 1, so that no echo is answered",
        "netns node: link cni0 does not find the next hop: nobody answers for 10.244.1.9",
        "netns node: packet is not put together at link cni0: the rest of its packet does not come",
        "netns node: link cni0 has an MTU of 1500, and the packet has 2028 bytes",
        "netns node: link cni0 has an MTU of 1500, and the packet has 2028 bytes",
        "netns node: link cni0 has no port that is up and has carrier",
        "netns node: link cni0 has no port that is up and has carrier",
        "netns node: link cni0 is down",
        "netns node: link cni0 is down",
        "netns node: frame is not taken in at link cni0: 01:00:00:00:00:01 is no source address",
        "netns node: link cni0 has no port that is up and has carrier",
        "netns node: link cni0 has no port that is up and has carrier",
        "netns node: link cni0 has nowhere to send the frame: 02:00:00:00:00:77 is not known, and no port forwards",
        "netns node: link cni0 was not told where 02:00:00:00:00:77 is, nor where to send what it does not know",
        "netns node: link cni0 hands the packet to no vxlan: no vxlan here has network 7 on port 4789",
        "netns node: link cni0 does not take the frame in: 02:00:00:00:00:77 comes from 10.0.0.1, and cni0 was told that it is at 10.0.0.2",
        "netns node: link cni0 does not take the frame in: it comes from 02:00:00:00:00:01, which is cni0 itself",
        "netns node: packet is what nobody waits for at link cni0: it comes from 10.244.1.3, and 10.96.0.20 was asked",
        "netns node: packet is what nobody waits for at link cni0: nobody in node waits for this reply",
        "netns node: packet is what nobody waits for at link cni0: nobody in node has answered to such a connection",
        "netns node: link cni0 does not send the frame: it was not redirected here",
        "netns node: bridge port cni0 is isolated, as is the port that the frame came in by",
        "netns node: bridge port cni0 does not pass the frame on: port v-a is no member of VLAN 7",
        "netns node: bridge port cni0 is where the frame came in, and no hairpin",
        "netns node: link cni0 has no port that is up and has carrier",
        "netns node: socket refuses to send the packet at link cni0: fe80::9 is on which link? (EINVAL)",
        "netns node: socket refuses to send the packet at link cni0: 10.1.1.1 is no address of node (EADDRNOTAVAIL)",
        "netns node: socket refuses to send the packet at link cni0: no source address (EADDRNOTAVAIL)",
        "netns node: frame goes in a circle at link cni0: this very frame came by 20 times before",
        "netns node: simulation was given up at link cni0: not done after 20000 steps",
      ]
    `);
  });
});
