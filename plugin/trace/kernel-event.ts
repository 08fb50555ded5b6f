/** What the kernel's tracepoints tell of packets, as tracefs prints it (include/trace/events/net.h, skb.h). */

/** A packet at a link, `skb` being where the kernel keeps it. The events name the link, not its netns. */
export interface LinkEvent {
  /** Handed to the link, sent by it, or received from it. */
  readonly kind: 'queue' | 'transmit' | 'receive';
  /** Of the process in whose time it happened, which may have nothing to do with it. */
  readonly pid: number;
  readonly cpu: number;
  readonly seconds: number;
  readonly skb: string;
  readonly ifname: string;
  /** With the link's header where it is sent, without where it is received. */
  readonly bytes: number;
  /** Did the process itself ask for what happened? Else an interrupt took its time, for packets of anybody. */
  readonly isOfProcess: boolean;
}

/** The end of a packet that nobody takes. */
export interface DropEvent {
  readonly kind: 'drop';
  readonly pid: number;
  readonly cpu: number;
  readonly seconds: number;
  readonly skb: string;
  /** The kernel's own name for it, NETFILTER_DROP; null on kernels before 5.17, which give none. */
  readonly reason: string | null;
  /** The kernel function that drops it, `nf_hook_slow+0x1c/0xa0`; an address where symbols are hidden. */
  readonly location: string;
  readonly isOfProcess: boolean;
}

export type KernelEvent = LinkEvent | DropEvent;

/** The tracepoints that are read, and what each says. */
export const LINK_TRACEPOINTS = {
  net_dev_queue: 'queue',
  net_dev_start_xmit: 'transmit',
  netif_receive_skb: 'receive',
} as const;

export const DROP_TRACEPOINT = 'kfree_skb';

/** `  COMMAND-PID   [CPU] FLAGS SECONDS: NAME: FIELDS`; a command may hold anything. */
const LINE = /^.*-(\d+)\s+\[(\d+)\]\s+(\S+)\s+(\d+\.\d+): (\w+): (.*)$/;

/** The flags of a line: interrupts off, need to reschedule, and then in which interrupt, `.` for none. */
const OF_PROCESS = /^..\./;

function field(text: string, name: string): string | undefined {
  return new RegExp(`(?:^|\\s)${name}=(\\S+)`).exec(text)?.[1];
}

function isLinkTracepoint(name: string): name is keyof typeof LINK_TRACEPOINTS {
  return Object.hasOwn(LINK_TRACEPOINTS, name);
}

function parseLine(line: string): KernelEvent | undefined {
  const [, pid, cpu, flags = '', seconds, name = '', fields = ''] = LINE.exec(line) ?? [];
  const skb = field(fields, 'skbaddr');
  if (skb === undefined) return undefined;
  const common = {
    pid: Number(pid),
    cpu: Number(cpu),
    seconds: Number(seconds),
    skb,
    isOfProcess: OF_PROCESS.test(flags),
  };
  if (name === DROP_TRACEPOINT) {
    const reason = /\breason: (\S+)/.exec(fields)?.[1] ?? null;
    const location = field(fields, 'location') ?? '?';
    return { ...common, kind: 'drop', reason, location };
  }
  const ifname = field(fields, 'dev');
  const bytes = Number(field(fields, 'len'));
  if (!isLinkTracepoint(name) || ifname === undefined || Number.isNaN(bytes)) return undefined;
  return { ...common, kind: LINK_TRACEPOINTS[name], ifname, bytes };
}

/** The events in the text of a tracefs `trace` file, in its order; other lines are left out. */
export function parseKernelEvents(text: string): KernelEvent[] {
  return text.split('\n').flatMap((line) => parseLine(line) ?? []);
}
