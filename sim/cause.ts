/** What is to blame for a loss, as an object, what is wrong with it, and the commands that would mend it. */
import { HOST_NETNS, type NetnsName, type SysctlKey } from '../model/host.ts';
import type { LinkRef } from '../model/link.ts';
import { quoteForShell } from '../model/shell.ts';
import type { DropReason } from './reason.ts';

/** The guilty object. */
export interface Cause {
  readonly netns: NetnsName;
  /** In the words of its kind: `link eth0`, `chain inet filter forward`, `sysctl net.ipv4.ip_forward`, `route to 10.0.0.1`. */
  readonly object: string;
  /** What is wrong with it. */
  readonly text: string;
  readonly reason: DropReason;
  /** Commands that would mend it, each to be run on the host; none where only people can know. */
  readonly mend: readonly string[];
}

/** A command as it has to be typed on the host to work in a netns. */
export function within(netns: NetnsName, command: string): string {
  if (netns === HOST_NETNS) return command;
  const path = netns.startsWith('/') ? netns : `/run/netns/${netns}`;
  return `nsenter --net=${quoteForShell(path)} ${command}`;
}

/** A link that is down. */
export function linkDown({ netns, ifname }: LinkRef): Omit<Cause, 'reason'> {
  return {
    netns,
    object: `link ${ifname}`,
    text: 'is down',
    mend: [within(netns, `ip link set ${ifname} up`)],
  };
}

/** A setting that should have another value. */
export function sysctl(
  netns: NetnsName,
  key: SysctlKey,
  value: string,
  text: string,
): Omit<Cause, 'reason'> {
  const name = key.replaceAll('/', '.');
  return {
    netns,
    object: `sysctl ${name}`,
    text,
    mend: [within(netns, `sysctl -w ${name}=${value}`)],
  };
}

/** A cause as a sentence: `netns a: link eth0 is down`. */
export function formatCause({ netns, object, text }: Omit<Cause, 'reason' | 'mend'>): string {
  return `netns ${netns}: ${object} ${text}`;
}
