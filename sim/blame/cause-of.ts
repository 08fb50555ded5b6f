/** What is to blame when a packet does not arrive, in one sentence, and what would mend it. */
import { type Host, findLink } from '../../model/host.ts';
import type { Link, LinkRef } from '../../model/link.ts';
import type { Flow } from '../../model/route-lookup.ts';
import { type Cause, linkDown, sysctl, within } from '../cause.ts';
import { flowsOf } from '../passed-over.ts';
import type { Blame, Dropped, Inquiry } from './blame.ts';
import { ofChain } from './chain.ts';
import { ofMtu, ofPort, ofSilence } from './link.ts';
import { ofLostPort } from './lost-port.ts';
import { ofMac, ofNeighbour } from './neighbour.ts';
import { ofPacket } from './packet.ts';
import { ofBroadcast, ofForwarding, ofLoopback, ofReversePath, ofRouting } from './routing.ts';
import { ofUntranslatedAnswer } from './untranslated-answer.ts';

function bridgeOf(host: Host, at: LinkRef): Link | undefined {
  const master = findLink(host, at)?.port?.master;
  return master === undefined ? undefined : findLink(host, { ...at, ifname: master });
}

function blame(host: Host, verdict: Dropped, flows: readonly Flow[]): Blame {
  const { reason, netns, link, text, lookedUp } = verdict;
  const at = link === null ? undefined : { netns, ifname: link };
  const about = verdict.about ?? at;
  switch (reason) {
    case 'QDISC_DROP':
      if (at) return ofSilence(host, at, text);
      break;
    case 'IP_OUTNOROUTES':
    case 'IP_INNOROUTES':
      return ofRouting(host, verdict, flows);
    case 'SOCKET_REFUSED':
    case 'INVALID_PROTO':
      if (lookedUp?.kind === 'route' && text.includes('broadcast'))
        return ofBroadcast(verdict, lookedUp.destination);
      break;
    case 'IP_INADDRERRORS':
      if (lookedUp?.kind === 'route' && text.includes('orward'))
        return ofForwarding(host, verdict, lookedUp.destination);
      break;
    case 'IP_RPFILTER':
      return ofReversePath(host, verdict);
    case 'ECHO_IGNORED': {
      const [key = ''] = text.split(' ');
      return sysctl(netns, key.replaceAll('.', '/'), '0', 'is 1, so that no echo is answered');
    }
    case 'IP_LOCALNET':
      return sysctl(netns, `net/ipv4/conf/${link}/route_localnet`, '1', `is 0, and ${text}`);
    case 'IPV6DISABLED':
      return sysctl(netns, `net/ipv6/conf/${link}/disable_ipv6`, '0', `is 1: ${text}`);
    case 'NETFILTER_DROP':
      return ofChain(host, verdict);
    case 'PKT_TOO_BIG':
    case 'FRAME_TOO_BIG':
      if (about) return ofMtu(host, about, text, lookedUp);
      break;
    case 'BRIDGE_ISOLATED':
    case 'BRIDGE_SAME_PORT':
    case 'BRIDGE_VLAN':
    case 'BRIDGE_PORT_DOWN':
      if (about) return ofMac(host, verdict) ?? ofPort(host, about, reason, text);
      break;
    case 'BRIDGE_INGRESS_STP_STATE':
      if (at) {
        const bridge = bridgeOf(host, at);
        return bridge && !bridge.up
          ? linkDown({ netns, ifname: bridge.ifname })
          : ofSilence(host, at, text);
      }
      break;
    case 'NEIGH_FAILED':
      if (at && lookedUp?.kind === 'neighbour') return ofNeighbour(host, at, lookedUp.ip, blame);
      break;
    case 'OTHERHOST':
      return ofMac(host, verdict) ?? ofPacket(verdict);
    case 'TC_INGRESS':
      if (about && findLink(host, about)) return linkDown(about);
      break;
    case 'VXLAN_VNI_NOT_FOUND':
      if (verdict.about) return linkDown(verdict.about);
      break;
    case 'VXLAN_ENTRY_EXISTS':
    case 'LOCAL_MAC':
      return ofPacket({ ...verdict, link: about?.ifname ?? link });
    case 'VXLAN_NO_REMOTE':
      return {
        object: `link ${link}`,
        text: `${text.replace(`${link} `, '')}, nor where to send what it does not know`,
        mend: [within(netns, `bridge fdb append 00:00:00:00:00:00 dev ${link} dst REMOTE`)],
      };
    case 'NO_TX_TARGET': {
      const stray = ofMac(host, verdict);
      if (stray) return stray;
      break;
    }
    // The packet itself, or the network as a whole.
    case 'FRAG_REASM_TIMEOUT':
    case 'IFB_OWN':
    case 'IP_INHDR':
    case 'IP_INVALID_DEST':
    case 'IP_INVALID_SOURCE':
    case 'IP_LOCAL_SOURCE':
    case 'LOOP':
    case 'MAC_INVALID_SOURCE':
    case 'NO_SOCKET':
    case 'STEP_LIMIT':
    case 'UNICAST_IN_L2_MULTICAST':
      break;
  }
  return ofPacket(verdict);
}

/** What a route was looked up for where a packet ended. */
function flowsIn({ hops }: Inquiry, { netns, link, reason, text }: Dropped): readonly Flow[] {
  const hop = hops.findLast(
    (each) =>
      each.netns === netns &&
      each.link === link &&
      each.dropped === reason &&
      each.decision.endsWith(text),
  );
  return hop?.data.kind === 'ip' ? flowsOf(hop, hop.data) : [];
}

/** What the probe as a whole tells, wherever it ended. */
function ofProbe(inquiry: Inquiry, { reason }: Dropped): Blame | undefined {
  const found = ofLoopback(inquiry) ?? ofLostPort(inquiry);
  return found ?? (reason === 'NO_SOCKET' ? ofUntranslatedAnswer(inquiry) : undefined);
}

/** The loss that is the reason for all others: where a neighbour did not answer, whatever kept it from that. */
function rootOf(verdict: Dropped): Dropped {
  return verdict.because ? rootOf(verdict.because) : verdict;
}

/** What is to blame for a probe's end. */
export function causeOf(inquiry: Inquiry, verdict: Dropped): Cause {
  const root = rootOf(verdict);
  const { netns, reason } = root;
  const found = ofProbe(inquiry, root) ?? blame(inquiry.world.host, root, flowsIn(inquiry, root));
  return { netns, reason, ...found };
}
