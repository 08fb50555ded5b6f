/** Rules as others write them on the routed host's netns node, in their own words, and what they are asked. */
import { parseIp } from '../../model/ip.ts';
import type { Question } from './stations.ts';

/** A ruleset of others. */
export interface ForeignRuleset {
  readonly name: string;
  /** For `nft -f`. */
  readonly nft?: string;
  /** For `iptables-nft-restore`, and for IPv6. */
  readonly iptables?: string;
  readonly ip6tables?: string;
  /** Do bridges hand packets to the chains of IP? They do not where it is not said. */
  readonly bridged?: boolean;
  /** What is asked beside everything that everybody can ask. */
  readonly questions?: readonly Question[];
}

const OF_NODE: readonly Question[] = (['a', 'b', 'c', 'd'] as const).flatMap((netns) =>
  ['10.244.1.1', '10.244.2.1', 'fd00:1::1'].map(parseIp).flatMap((destination): Question[] => [
    { netns, protocol: 'tcp', destination, port: 80 },
    { netns, protocol: 'udp', destination, port: 80 },
  ]),
);

const DOCKER: ForeignRuleset = {
  name: 'docker',
  iptables: `*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -d 10.244.3.2/32 ! -i v-d -p udp -j NOTRACK
-A PREROUTING -s 10.244.3.2/32 -p udp -j CT --notrack
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o cni0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o cni0 -j DOCKER
-A FORWARD -i cni0 ! -o cni0 -j ACCEPT
-A FORWARD -i cni0 -o cni0 -j ACCEPT
-A FORWARD -o cni1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o cni1 -p tcp -m conntrack --ctstate DNAT -j ACCEPT
-A DOCKER -d 10.244.1.2/32 ! -i cni0 -o cni0 -p tcp -m tcp --dport 7000 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i cni0 ! -o cni0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o v-d -p icmp -m icmp --icmp-type 8 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -s 10.244.1.3/32 -p udp -m multiport --dports 53,6000:7000 -j DROP
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 10.244.1.0/24 ! -o cni0 -j MASQUERADE
-A POSTROUTING -s 10.244.1.2/32 -d 10.244.1.2/32 -p tcp -m tcp --dport 7000 -j MASQUERADE
-A DOCKER -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.2.4:7000
-A DOCKER ! -i cni1 -p udp -m udp --dport 80 -j REDIRECT --to-ports 7000
COMMIT
`,
  ip6tables: `*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -o v-d -j REJECT --reject-with icmp6-adm-prohibited
-A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 128 -i v-d -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d fd96::1/128 -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00:2::4]:7000
-A POSTROUTING -s fd00:1::/64 -o v-d -j SNAT --to-source fd00:3::1
-A POSTROUTING -s fd00:2::/64 -j MASQUERADE
COMMIT
`,
  questions: OF_NODE,
};

const KUBE_PROXY_IPTABLES: ForeignRuleset = {
  name: 'kube-proxy by iptables',
  iptables: `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-SERVICES -d 10.96.0.1/32 -p udp -m comment --comment "default/none has no endpoints" -m udp --dport 80 -j REJECT --reject-with icmp-port-unreachable
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-SEP-B - [0:0]
:KUBE-SVC-X - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-NODEPORTS -p tcp -m tcp --dport 80 -j KUBE-SVC-X
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SEP-A -s 10.244.2.4/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.244.2.4:7000
-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.244.1.2:7000
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-X
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-X ! -s 10.244.1.0/24 -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-X -m statistic --mode random --probability 1.00000000000 -j KUBE-SEP-A
-A KUBE-SVC-X -j KUBE-SEP-B
COMMIT
`,
  questions: OF_NODE,
};

const KUBE_PROXY_NFT: ForeignRuleset = {
  name: 'kube-proxy by nft',
  nft: `table ip kube-proxy {
  set cluster-ips { type ipv4_addr; elements = { 10.96.0.1, 10.96.0.10 }; }
  set nodeport-ips { type ipv4_addr; elements = { 10.244.1.1 }; }
  set affinity { type ipv4_addr; flags dynamic, timeout; timeout 3h; }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.1 . tcp . 80 : goto svc }; }
  map service-nodeports { type inet_proto . inet_service : verdict; elements = { tcp . 80 : goto svc }; }
  map no-endpoints { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.1 . udp . 80 : goto reject-chain }; }
  map hairpin { type ipv4_addr . ipv4_addr : verdict; elements = { 10.244.2.4 . 10.244.2.4 : jump mark-for-masquerade }; }
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain reject-chain { reject; }
  chain ep { ip saddr 10.244.2.4 jump mark-for-masquerade; update @affinity { ip saddr }; meta l4proto tcp dnat to 10.244.2.4:7000; }
  chain svc { ip daddr 10.96.0.1 tcp dport 80 ip saddr != 10.244.1.0/24 jump mark-for-masquerade; numgen random mod 1 vmap { 0 : goto ep }; }
  chain services {
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr @nodeport-ips fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports
  }
  chain masquerading {
    ip saddr . ip daddr vmap @hairpin
    meta mark and 0x4000 == 0 return
    meta mark set meta mark xor 0x4000
    masquerade fully-random
  }
  chain cluster-ips-check { ip daddr @cluster-ips reject comment "no such port"; }
  chain filter-prerouting { type filter hook prerouting priority -110; ct state new jump nothing; }
  chain nothing { }
  chain filter-forward { type filter hook forward priority -110; ct state new ip daddr . meta l4proto . th dport vmap @no-endpoints; ct state new jump cluster-ips-check; }
  chain filter-output { type filter hook output priority -110; ct state new ip daddr . meta l4proto . th dport vmap @no-endpoints; ct state new jump cluster-ips-check; }
  chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
}
`,
  questions: OF_NODE,
};

const FIREWALLD: ForeignRuleset = {
  name: 'firewalld',
  nft: `table inet firewalld {
  set trusted { type ipv4_addr; flags interval; elements = { 10.244.1.2-10.244.1.9, 10.244.3.0/30 }; }
  chain filter_INPUT {
    type filter hook input priority 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_INPUT_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority 10; policy accept;
    ct state vmap { invalid : drop, established : accept, related : accept }
    ct status dnat accept
    iifname "lo" accept
    jump filter_FORWARD_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_INPUT_ZONES {
    iifname vmap { "cni0" : goto filter_IN_trusted, "v-d" : goto filter_IN_public }
    goto filter_IN_public
  }
  chain filter_FORWARD_ZONES {
    iifname vmap { "cni0" : goto filter_FWD_trusted, "cni1" : goto filter_FWD_public }
    goto filter_FWD_public
  }
  chain filter_IN_trusted { accept; }
  chain filter_IN_public {
    icmp type { echo-request } accept
    meta l4proto ipv6-icmp accept
    tcp dport { 22, 6999-7001 } ct state { new, untracked } accept
  }
  chain filter_FWD_trusted { accept; }
  chain filter_FWD_public {
    ip saddr @trusted udp dport 5000-8000 accept
    ip saddr . tcp dport { 10.244.3.2 . 7000, 10.244.2.0/24 . 80-90 } accept
    ip protocol icmp ip ttl > 1 accept
    tcp flags & (fin | syn | rst | ack) == syn ip6 daddr fd00:1::/64 accept
    meta nfproto ipv6 meta l4proto { udp, icmpv6 } oifname "cni*" accept
  }
}
`,
};

const MIXED: ForeignRuleset = {
  name: 'what else there is',
  nft: `table ip mixed {
  map to { type ipv4_addr : ipv4_addr; elements = { 10.96.0.1 : 10.244.2.4 }; }
  chain pre { type nat hook prerouting priority -101; udp dport 80 redirect to :7000; ip protocol tcp dnat to ip daddr map @to; }
  chain post { type nat hook postrouting priority 101; ip saddr 10.244.2.0/24 snat to 10.244.1.1; oifname "v-d" ip protocol icmp snat to 10.244.3.1; }
  chain passing { type filter hook forward priority 1; policy drop;
    ct direction reply accept
    ct original ip daddr 10.96.0.1 accept
    meta l4proto tcp ct original proto-dst 7000 accept
    meta mark set 0x7 meta mark 0x5-0x9 udp length > 5 accept
    icmp type != echo-reply @nh,96,32 != 0 th dport != 1-6 meta pkttype host accept
  }
  chain early { type filter hook prerouting priority -300; iif lo accept; iif cni1 ip saddr 10.244.2.4 udp dport 7000 ip daddr 10.244.1.3 drop; iif . oif { cni0 . v-d } drop; ip saddr 10.244.3.2 udp dport 7000 notrack; meta length > 5000 drop; }
}
table ip6 mixed {
  chain post { type nat hook postrouting priority 100; ip6 daddr fd00:2::/64 masquerade; }
  chain in { type filter hook input priority 0; tcp dport >= 7000 ip6 hoplimit 64 iifname { "cni1", "v-d" } reject with tcp reset; }
}
`,
};

/** What else iptables can ask and do, of what is understood; it is only read. */
export const IPTABLES_WORDS: ForeignRuleset = {
  name: 'whatever iptables asks',
  iptables: `*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -p tcp -m tcp --sport 5:6 ! --dport 7 --tcp-flags SYN,ACK,FIN NONE -j ACCEPT
-A FORWARD -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,PSH,ACK,URG FIN,PSH -j ACCEPT
-A FORWARD -p tcp -m tcp ! --sport 1000:2000 -j REJECT --reject-with tcp-reset
-A FORWARD -p udp -m udp ! --sport 53 --dport 1024:65535 -j REJECT
-A FORWARD -p icmp -m icmp --icmp-type 3/1 -j REJECT --reject-with icmp-net-unreachable
-A FORWARD -p icmp -m icmp ! --icmp-type any -j REJECT --reject-with icmp-proto-unreachable
-A FORWARD -p icmp -m icmp --icmp-type 3 -j REJECT --reject-with icmp-admin-prohibited
-A FORWARD -m conntrack ! --ctstate NEW,UNTRACKED --ctproto 6 --ctorigsrc 10.0.0.0/8 ! --ctrepldst 10.1.2.3 --ctorigdstport 80:90 --ctstatus ASSURED --ctdir REPLY -j ACCEPT
-A FORWARD -m conntrack --ctstate SNAT ! --ctproto 17 --ctorigdst 10.0.0.1 --ctreplsrc 10.4.0.0/255.255.0.255 --ctorigsrcport 1 ! --ctreplsrcport 2:3 --ctrepldstport 4 ! --ctstatus NONE -j ACCEPT
-A FORWARD -m conntrack --ctstatus EXPECTED,SEEN_REPLY,CONFIRMED --ctdir ORIGINAL -j ACCEPT
-A FORWARD -m addrtype ! --src-type LOCAL,BROADCAST --dst-type UNICAST --limit-iface-in -j ACCEPT
-A FORWARD -m addrtype --src-type ANYCAST ! --dst-type MULTICAST,BLACKHOLE,UNREACHABLE,PROHIBIT -j ACCEPT
-A FORWARD -m addrtype --dst-type LOCAL --limit-iface-out -j ACCEPT
-A FORWARD -m mark ! --mark 0x5 -m mark --mark 0x10/0xf0 -j ACCEPT
-A FORWARD -p tcp -m multiport ! --sports 1,2,3:4 -m multiport --ports 5,6 -j ACCEPT
-A FORWARD -m statistic --mode random ! --probability 0.33333333349 -j ACCEPT
-A FORWARD -m statistic --mode nth --every 3 --packet 1 -j ACCEPT
-A FORWARD -m comment --comment "some words" -p tcp -m tcp --dport 80 -m limit --limit 5/min -j LOG --log-prefix "gone: "
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
-A PREROUTING -j MARK --set-mark 0x5
-A PREROUTING -j MARK --or-mark 0x5
-A PREROUTING -j MARK --and-mark 0xff
-A PREROUTING -j MARK --xor-mark 0x5
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -j DNAT --to-destination 10.0.0.1
-A PREROUTING -p tcp -j DNAT --to-destination :80
-A PREROUTING -p udp -j DNAT --to-destination 10.0.0.1:80 --random
-A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1-10.0.0.5:80-90
-A PREROUTING -p tcp -j REDIRECT --to-ports 80-90
-A PREROUTING -j REDIRECT
-A POSTROUTING -j SNAT --to-source 10.0.0.1 --persistent
-A POSTROUTING -p tcp -j SNAT --to-source 10.0.0.1:1024
-A POSTROUTING -j MASQUERADE --random
COMMIT
`,
  ip6tables: `*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 1/4 -j REJECT --reject-with icmp6-port-unreachable
-A FORWARD -p ipv6-icmp -m icmp6 ! --icmpv6-type 136 -j REJECT --reject-with icmp6-addr-unreachable
-A FORWARD -m conntrack --ctorigsrc fd00::/16 --ctorigdst fd00::1 -j REJECT --reject-with icmp6-no-route
-A FORWARD -p tcp -j REJECT --reject-with tcp-reset
-A FORWARD -j REJECT --reject-with icmp6-policy-fail
-A FORWARD -j REJECT --reject-with icmp6-reject-route
COMMIT
`,
};

/** All that packets are sent through. */
export const FOREIGN_RULESETS: readonly ForeignRuleset[] = [
  DOCKER,
  KUBE_PROXY_IPTABLES,
  KUBE_PROXY_NFT,
  FIREWALLD,
  MIXED,
];
