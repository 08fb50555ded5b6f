/** What happens on a node, one thing after another: calls, how they fare, and what others do meanwhile. */
import type { Errno } from '../../../model/errno.ts';
import type { OpSeed } from '../../arbitraries/draw.ts';

/** How a call fares. Numbers count from 0; one beyond what the call does means that it fares well. */
export type Fate =
  | { readonly kind: 'fine' }
  /** An operation is refused, or done and refused all the same (`half`); with `lasts` all behind it are refused too. */
  | {
      readonly kind: 'refused' | 'half';
      readonly at: number;
      readonly errno: Errno;
      readonly lasts: boolean;
    }
  /** The kernel cannot be read, once. */
  | { readonly kind: 'unreadable'; readonly at: number }
  /** The process is killed after so many effects on kernel, state file and lock. */
  | { readonly kind: 'dies'; readonly after: number };

/** Something that happens. Pods and networks are numbers; what cannot be at the moment does not happen. */
export type Step =
  | {
      readonly do: 'ADD';
      readonly pod: number;
      readonly network: number;
      readonly ifname: string;
      /** A pod that has no attachment may be another container by now, in a netns of its own. */
      readonly container: 'same' | 'new';
      readonly fate: Fate;
    }
  /** One of the attachments there are, or one that never was. */
  | { readonly do: 'DEL'; readonly attachment: number; readonly fate: Fate }
  | { readonly do: 'CHECK'; readonly attachment: number }
  /** The runtime knows all that it has a result of, none, or every other one. */
  | {
      readonly do: 'GC';
      readonly network: number;
      readonly known: 'all' | 'none' | 'some';
      readonly fate: Fate;
    }
  | { readonly do: 'STATUS'; readonly network: number }
  /** The runtime takes a pod's netns away before it calls DEL. */
  | { readonly do: 'netns'; readonly pod: number }
  /** Somebody does something of his own in the host's netns, or in that of a pod. */
  | { readonly do: 'foreign'; readonly seed: OpSeed }
  /** Somebody damages something of an attachment, chosen by two numbers; CHECK's plan mends it, or nobody does. */
  | {
      readonly do: 'damage';
      readonly attachment: number;
      readonly what: number;
      readonly mend: boolean;
    }
  /** The machine starts anew, with the state file as it was or, where that was in memory, without. */
  | { readonly do: 'reboot'; readonly state: 'kept' | 'lost' };

/** The words of a fate; '' where nothing goes wrong. */
function formatFate(fate: Fate): string {
  switch (fate.kind) {
    case 'fine':
      return '';
    case 'refused':
      return `, operation ${fate.at} is refused: ${fate.errno}${fate.lasts ? ', and all behind it' : ''}`;
    case 'half':
      return `, operation ${fate.at} is done and refused: ${fate.errno}${fate.lasts ? ', and all behind it' : ''}`;
    case 'unreadable':
      return `, look ${fate.at} at the kernel fails`;
    case 'dies':
      return `, the process dies after ${fate.after} effects`;
  }
}

/** A step as a line of text. */
export function formatStep(step: Step): string {
  switch (step.do) {
    case 'ADD':
      return `ADD pod ${step.pod} (${step.container} container) net${step.network} ${step.ifname}${formatFate(step.fate)}`;
    case 'DEL':
      return `DEL attachment ${step.attachment}${formatFate(step.fate)}`;
    case 'CHECK':
      return `CHECK attachment ${step.attachment}`;
    case 'GC':
      return `GC net${step.network}, the runtime knows ${step.known}${formatFate(step.fate)}`;
    case 'STATUS':
      return `STATUS net${step.network}`;
    case 'netns':
      return `the netns of pod ${step.pod} goes`;
    case 'foreign':
      return `others do ${step.seed.join(' ')}`;
    case 'damage':
      return `damage ${step.what} to attachment ${step.attachment}, ${step.mend ? 'mended' : 'not mended'}`;
    case 'reboot':
      return `reboot, the state file is ${step.state}`;
  }
}
