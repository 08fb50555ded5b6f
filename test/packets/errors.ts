/** ICMP errors of the simulator, and those that the kernel tells of, in the same words. */
import { familyOf } from '../../model/ip.ts';
import type { ErrorKind } from '../../sim/frame.ts';
import type { SenderError } from '../../sim/trace.ts';
import type { Told } from './sockets.ts';

/** Type and code by what they say (include/uapi/linux/icmp.h, icmpv6.h). */
const NUMBERS: Readonly<Record<4 | 6, Readonly<Record<ErrorKind, string>>>> = {
  4: {
    'time exceeded': '11/0',
    'reassembly time exceeded': '11/1',
    'net unreachable': '3/0',
    'host unreachable': '3/1',
    'port unreachable': '3/3',
    'too big': '3/4',
    'admin prohibited': '3/13',
  },
  6: {
    'time exceeded': '3/0',
    'reassembly time exceeded': '3/1',
    'net unreachable': '1/0',
    'host unreachable': '1/3',
    'port unreachable': '1/4',
    'too big': '2/0',
    'admin prohibited': '1/1',
  },
};

/** An error of the simulator in numbers. */
export function formatError(error: SenderError | null): string {
  if (error === null) return 'nothing';
  const { from, error: kind, mtuBytes } = error;
  if (kind === 'connection refused') return kind;
  return `${NUMBERS[familyOf(from)][kind]} from ${from}, mtu ${mtuBytes ?? 0}`;
}

/** An error that a socket was told of, in numbers. */
export function formatTold(told: Told | undefined): string {
  return told ? `${told.type}/${told.code} from ${told.from}, mtu ${told.mtuBytes}` : 'nothing';
}
