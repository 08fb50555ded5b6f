import type { Ifname } from '../../model/ifname.ts';
import { type Ip, familyOf, parseIp } from '../../model/ip.ts';
import { parseMac } from '../../model/mac.ts';
import type { Attachment } from '../../plugin/attachment.ts';

/** What a test says of an attachment. */
interface AttachmentChoice {
  readonly network?: string;
  readonly containerId: string;
  readonly ifname?: string;
  readonly addresses?: readonly string[];
  readonly bridge?: string;
}

/** An attachment with the given addresses, to be put into a store. */
export function makeTestAttachment(choice: AttachmentChoice): Attachment {
  const { network = 'net', containerId, ifname = 'eth0', addresses = [], bridge = 'cni0' } = choice;
  return {
    key: { network, containerId, ifname: ifname as Ifname },
    netns: `/run/netns/${containerId}`,
    bridge: bridge as Ifname,
    bridgeMac: parseMac('02:00:00:00:00:01'),
    promiscuous: false,
    hostIfname: 'veth0123456789a' as Ifname,
    hostMac: parseMac('02:00:00:00:00:02'),
    podMac: parseMac('02:00:00:00:00:03'),
    mtuBytes: 1500,
    hairpin: false,
    gateway: true,
    forceAddress: false,
    masquerade: true,
    addresses: addresses.map((text) => ({
      ip: parseIp(text),
      prefixLength: familyOf(text) === 4 ? 24 : 64,
      gateway: (familyOf(text) === 4 ? '10.0.0.1' : 'fd00::1') as Ip,
    })),
    routes: [],
  };
}
