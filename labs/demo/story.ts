import type picocolors from 'picocolors';
import { desiredOf } from '../../model/desired.ts';
import { diff } from '../../model/diff.ts';
import { parseIfname } from '../../model/ifname.ts';
import { type Ip, parseIp } from '../../model/ip.ts';
import { formatFault } from '../../model/message.ts';
import { describeOp } from '../../model/ops.ts';
import { countOps } from '../../model/plan-text.ts';
import { parsePrefixedIp } from '../../model/prefix.ts';
import type { Answer, DemoVerb, Pod, Stage } from './stage.ts';

type Colors = ReturnType<typeof picocolors.createColors>;

/** Where the demonstration writes, and in which colours. */
export interface Terminal {
  readonly write: (text: string) => void;
  readonly colors: Colors;
}

/** What the demonstration reads of an ADD result. */
interface AddResult {
  readonly ips: readonly { readonly address: string; readonly gateway: string }[];
}

/** What has been seen so far. */
interface Tally {
  /** How often something did not come out as it must. */
  failures: number;
  /** Has a packet's way been shown? */
  traced: boolean;
}

function indent(text: string): string {
  return text.trimEnd().replaceAll(/^/gm, '    ');
}

/** A plan in the colours of its signs. */
function paint(text: string, { green, red, yellow, dim }: Colors): string {
  return text
    .split('\n')
    .map((line) => {
      if (/^\s*\+ /.test(line)) return green(line);
      if (/^\s*- /.test(line)) return red(line);
      if (/^\s*~ /.test(line)) return yellow(line);
      return /^\s*(kernel also|note):/.test(line) ? dim(line) : line;
    })
    .join('\n');
}

function heading({ write, colors }: Terminal, text: string): void {
  write(`\n${colors.bold(text)}\n`);
}

/** Says how something came out; it must come out `well`. */
function report(terminal: Terminal, tally: Tally, well: boolean, text: string): void {
  const { green, red } = terminal.colors;
  terminal.write(`  ${well ? green('✓') : red('✗')} ${text}\n`);
  if (!well) tally.failures += 1;
}

function addressesOf(answer: Answer): { readonly own: Ip; readonly gateway: Ip }[] {
  const { ips } = JSON.parse(answer.output) as AddResult;
  return ips.map((ip) => ({ own: parsePrefixedIp(ip.address).ip, gateway: parseIp(ip.gateway) }));
}

/** Shows the plan of a call, then makes the call. */
async function planAndCall(
  terminal: Terminal,
  stage: Stage,
  verb: DemoVerb,
  pod: Pod,
): Promise<Answer> {
  heading(terminal, `${verb} ${pod.name}: the plan`);
  terminal.write(`${indent(paint(await stage.plan(verb, pod), terminal.colors))}\n`);
  return stage.call(verb, pod);
}

function pingAll(
  terminal: Terminal,
  tally: Tally,
  stage: Stage,
  from: Pod,
  targets: readonly (readonly [string, Ip])[],
): void {
  for (const [name, destination] of targets) {
    const echo = stage.ping(from, destination);
    report(terminal, tally, echo.ok, `${from.name} pings ${name} at ${destination}: ${echo.text}`);
    if (echo.trace === '' || tally.traced) continue;
    // One is enough to see how a packet goes.
    tally.traced = true;
    terminal.write(`${terminal.colors.dim(indent(echo.trace))}\n`);
  }
}

/** Breaks a link and lets CHECK say so. */
async function breakAndCheck(
  terminal: Terminal,
  tally: Tally,
  stage: Stage,
  pod: Pod,
  prevResult: unknown,
): Promise<void> {
  heading(terminal, 'CHECK');
  const before = await stage.call('CHECK', pod, prevResult);
  report(
    terminal,
    tally,
    before.ok,
    `CHECK ${pod.name} finds nothing${before.ok ? '' : `: ${before.output}`}`,
  );
  const fault = {
    op: 'link.set',
    netns: pod.netns,
    ifname: parseIfname('eth0'),
    set: { up: false },
  } as const;
  const refused = stage.interfere(fault);
  report(
    terminal,
    tally,
    refused === undefined,
    `somebody types "${describeOp(fault)[0]}" in ${pod.name}${refused ? `: ${formatFault(refused)}` : ''}`,
  );
  const after = await stage.call('CHECK', pod, prevResult);
  report(terminal, tally, !after.ok, 'CHECK names what is broken now:');
  const { details = '' } = after.ok ? {} : (JSON.parse(after.output) as { details?: string });
  terminal.write(`${indent(terminal.colors.yellow(details))}\n`);
}

/** Two pods get a network, use it, lose it; returns how often something did not come out as it must. */
export async function tell(stage: Stage, terminal: Terminal): Promise<number> {
  const tally: Tally = { failures: 0, traced: false };
  const [a, b] = stage.pods;
  const untouched = stage.observe();
  const results = new Map<Pod, Answer>();
  for (const pod of stage.pods) {
    const answer = await planAndCall(terminal, stage, 'ADD', pod);
    report(
      terminal,
      tally,
      answer.ok,
      answer.ok
        ? `ADD gave ${pod.name} ${addressesOf(answer)
            .map(({ own }) => own)
            .join(' and ')}`
        : `ADD ${pod.name}: ${answer.output}`,
    );
    if (!answer.ok) return tally.failures;
    results.set(pod, answer);
  }

  heading(terminal, 'The pods talk');
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    const own = addressesOf(results.get(from) as Answer);
    const other = addressesOf(results.get(to) as Answer);
    pingAll(terminal, tally, stage, from, [
      ...other.map(({ own: ip }) => [to.name, ip] as const),
      ...own.map(({ gateway }) => ['the gateway', gateway] as const),
    ]);
  }

  await breakAndCheck(terminal, tally, stage, a, JSON.parse((results.get(a) as Answer).output));

  for (const pod of stage.pods) {
    const answer = await planAndCall(terminal, stage, 'DEL', pod);
    report(
      terminal,
      tally,
      answer.ok,
      `DEL removed ${pod.name} from the network${answer.ok ? '' : `: ${answer.output}`}`,
    );
  }

  heading(terminal, 'What is left');
  const left = diff(stage.observe(), desiredOf(untouched));
  const { add, change, remove } = countOps(left);
  report(
    terminal,
    tally,
    left.length === 0,
    `difference to before the first ADD: ${add} to add, ${change} to change, ${remove} to remove`,
  );
  for (const op of left) terminal.write(`${indent(describeOp(op).join('\n'))}\n`);
  return tally.failures;
}
