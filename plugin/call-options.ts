import { CNI_ERROR, CniError } from './cni/error.ts';

/** How a plan is printed: for people, for machines and `apply`, or as a shell script. */
export type PlanFormat = 'text' | 'json' | 'sh';

/** What the arguments of a CNI call may ask for; a runtime gives none. */
export interface CallOptions {
  /** Print what the call would do, in this form, and do nothing. */
  readonly plan: PlanFormat | undefined;
  /** With a plan: exit status 2 when something would change. */
  readonly detailedExitcode: boolean;
}

const OPTIONS: Readonly<Record<string, Partial<CallOptions>>> = {
  '--plan': { plan: 'text' },
  '--plan=text': { plan: 'text' },
  '--plan=json': { plan: 'json' },
  '--plan=sh': { plan: 'sh' },
  '--detailed-exitcode': { detailedExitcode: true },
};

/** The answer where somebody wants the plan of a verb that changes nothing, or of which there is no saying beforehand. */
export function noPlanOf(verb: string): CniError {
  return new CniError(
    CNI_ERROR.invalidEnvironment,
    `there is no plan of ${verb}`,
    '--plan is for ADD, DEL and CHECK',
  );
}

/** Reads the arguments of a CNI call. Throws an error of code 4 that names the one it does not know. */
export function parseCallOptions(args: readonly string[]): CallOptions {
  let options: CallOptions = { plan: undefined, detailedExitcode: false };
  for (const arg of args) {
    const change = Object.hasOwn(OPTIONS, arg) ? OPTIONS[arg] : undefined;
    if (!change)
      throw new CniError(
        CNI_ERROR.invalidEnvironment,
        `unknown argument ${arg}`,
        `a CNI call takes ${Object.keys(OPTIONS).join(', ')}`,
      );
    options = { ...options, ...change };
  }
  return options;
}
