/** Departs in the netns that it is started in: a departure as JSON on standard input, what was removed on standard output. */
import { makeLinuxBackend } from '../../../backends/linux/linux.ts';
import { describeOp } from '../../../model/ops.ts';
import {
  type Departed,
  type Departure,
  depart,
  planDeparture,
} from '../../../plugin/reference/departure.ts';
import { loadPrograms } from '../../../plugin/reference/programs.ts';

/** What a test asks for. */
export interface DepartQuestion {
  readonly departure: Omit<Departure, 'isTaken'>;
  /** Addresses of attachments of ours. */
  readonly taken: readonly string[];
  /** Only show the plan of the links. */
  readonly plan: boolean;
}

/** What it answers. */
export interface DepartAnswer extends Departed {
  /** What was logged. */
  readonly log: readonly string[];
}

const { departure, taken, plan }: DepartQuestion = JSON.parse(await Bun.stdin.text());
const backend = makeLinuxBackend();
if (plan) {
  console.log(JSON.stringify(planDeparture(backend, departure).ops.flatMap(describeOp)));
} else {
  const log: string[] = [];
  const departed = depart(
    {
      backend,
      run: await loadPrograms(),
      clock: () => performance.now(),
      log: (level, message) => log.push(`${level} ${message}`),
    },
    { ...departure, isTaken: (ip) => taken.includes(ip) },
  );
  console.log(JSON.stringify({ ...departed, log } satisfies DepartAnswer));
}
