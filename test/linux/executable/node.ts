/** A machine for one test: netns that nobody else uses, a folder for state and log, and the built executable on it. */
import { Database } from 'bun:sqlite';
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** What is tested: the file that users get. */
export const EXECUTABLE = join(import.meta.dirname, '../../../dist/cube-cni');

const REFERENCE_PLUGINS = '/usr/lib/cni';

/** No call waits for so long, whatever happens: the runtime's own limit is minutes. */
const TIMEOUT_MS = 30_000;

/** Nothing of the environment of the tests reaches a call. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** One call as a container runtime makes it. What is left out is what most tests want. */
export interface Call {
  readonly netns?: string;
  readonly containerId?: string;
  readonly ifname?: string;
  /** Goes to standard input as JSON, unless `stdin` is there. */
  readonly config?: unknown;
  readonly stdin?: string | Uint8Array;
  readonly args?: readonly string[];
  /** More variables, or other values of those of the specification. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** A command that starts the executable, such as one that sets the umask first. */
  readonly under?: readonly string[];
  /** Another program instead of the executable. */
  readonly program?: string;
}

/** What a program left behind. */
export interface Answer {
  /** The exit status, null when a signal ended it. */
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;
}

/** A call that is under way. */
export interface Running {
  readonly pid: number;
  readonly kill: () => void;
  readonly answer: Promise<Answer>;
}

/** What the answer of ADD holds, as far as tests look at it. */
export interface Result {
  readonly cniVersion: string;
  readonly interfaces: readonly {
    readonly name: string;
    readonly mac: string;
    readonly sandbox?: string;
  }[];
  readonly ips: readonly {
    readonly interface: number;
    readonly address: string;
    readonly gateway: string;
    readonly version?: string;
  }[];
  readonly routes?: readonly { readonly dst: string; readonly gw?: string }[];
  readonly dns?: object;
}

/** What an error on standard output holds. */
export interface ErrorAnswer {
  readonly cniVersion: string;
  readonly code: number;
  readonly msg: string;
  readonly details?: string;
}

export interface Node {
  /** The name of the netns that the executable takes for the host. */
  readonly netns: string;
  readonly folder: string;
  readonly dataDir: string;
  readonly logFile: string;
  /** Makes another netns on the machine and answers its path. */
  readonly addPod: () => string;
  /** A configuration whose state and log are in the node's folder. */
  readonly config: (changes?: Readonly<Record<string, unknown>>) => Record<string, unknown>;
  readonly call: (verb: string, call?: Call) => Answer;
  readonly start: (verb: string, call?: Call) => Running;
  /** Calls and expects an answer of exit status 0. */
  readonly add: (call?: Call) => Result;
  readonly del: (call?: Call) => void;
  /** The command line. */
  readonly cli: (args: readonly string[], stdin?: string) => Answer;
  /** Runs a command in the host netns; throws when it fails. */
  readonly run: (...command: string[]) => string;
}

let nodes = 0;

/** Runs a command; throws with its standard error when it fails. */
export function run(...command: readonly string[]): string {
  const { stdout, stderr, exitCode } = Bun.spawnSync([...command]);
  if (exitCode !== 0) throw new Error(`${command.join(' ')}: ${stderr.toString().trim()}`);
  return stdout.toString();
}

/** Runs a command in a netns, given by name or path. */
export function runIn(netns: string, ...command: readonly string[]): string {
  return run('nsenter', `--net=${netnsPath(netns)}`, '--', ...command);
}

/** Where the netns with a name is. */
export function netnsPath(netns: string): string {
  return netns.startsWith('/') ? netns : `/run/netns/${netns}`;
}

/** All that a call finds in its environment. */
function environmentOf(verb: string, call: Call): Record<string, string> {
  return {
    PATH,
    CNI_COMMAND: verb,
    CNI_CONTAINERID: call.containerId ?? 'pod-a',
    CNI_NETNS: call.netns ?? '',
    CNI_IFNAME: call.ifname ?? 'eth0',
    CNI_ARGS: 'IgnoreUnknown=1',
    CNI_PATH: REFERENCE_PLUGINS,
    ...call.env,
  };
}

/** Makes a node, which is removed when the test ends, however it ends. */
export function makeNode(): Node {
  nodes += 1;
  const name = `cube-test-${process.pid}-${nodes}`;
  const folder = mkdtempSync(join(tmpdir(), `${name}-`));
  const dataDir = join(folder, 'data');
  const logFile = join(folder, 'log/plugin.log');
  const made: string[] = [];
  onTestFinished(() => {
    for (const netns of made) Bun.spawnSync(['ip', 'netns', 'del', netns]);
    rmSync(folder, { recursive: true, force: true });
  });
  const addNetns = (netns: string): string => {
    made.push(netns);
    run('ip', 'netns', 'add', netns);
    return netnsPath(netns);
  };
  addNetns(name);

  const config: Node['config'] = (changes = {}) => ({
    cniVersion: '1.0.0',
    name: 'podnet',
    type: 'cube-cni',
    bridge: 'cni0',
    isGateway: true,
    ipMasq: true,
    ipam: {
      type: 'cube-ipam',
      ranges: [[{ subnet: '10.7.0.0/24' }]],
      routes: [{ dst: '0.0.0.0/0' }],
    },
    dataDir,
    logFile,
    ...changes,
  });

  const commandOf = ({ under = [], program = EXECUTABLE, args = [] }: Call): string[] => [
    'nsenter',
    `--net=${netnsPath(name)}`,
    '--',
    ...under,
    program,
    ...args,
  ];
  const stdinOf = (call: Call): Uint8Array => {
    const text = call.stdin ?? JSON.stringify(call.config ?? config());
    return typeof text === 'string' ? new TextEncoder().encode(text) : text;
  };

  const call: Node['call'] = (verb, options = {}) => {
    const started = performance.now();
    const { exitCode, stdout, stderr } = Bun.spawnSync(commandOf(options), {
      env: environmentOf(verb, options),
      cwd: options.cwd ?? folder,
      stdin: stdinOf(options),
      stdout: 'pipe',
      stderr: 'pipe',
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    return {
      status: exitCode,
      stdout: stdout.toString(),
      stderr: stderr.toString(),
      durationMs: performance.now() - started,
    };
  };

  const start: Node['start'] = (verb, options = {}) => {
    const started = performance.now();
    const child = Bun.spawn(commandOf(options), {
      env: environmentOf(verb, options),
      cwd: options.cwd ?? folder,
      stdin: stdinOf(options),
      stdout: 'pipe',
      stderr: 'pipe',
    });
    onTestFinished(() => child.kill('SIGKILL'));
    const answer = async (): Promise<Answer> => {
      const [stdout, stderr] = await Promise.all([
        new Response(child.stdout).text(),
        new Response(child.stderr).text(),
        child.exited,
      ]);
      const durationMs = performance.now() - started;
      return { status: child.exitCode, stdout, stderr, durationMs };
    };
    return { pid: child.pid, kill: () => child.kill('SIGKILL'), answer: answer() };
  };

  return {
    netns: name,
    folder,
    dataDir,
    logFile,
    addPod: () => addNetns(`${name}-${made.length}`),
    config,
    call,
    start,
    add: (options) => resultOf(call('ADD', options)),
    del: (options) => {
      const { status, stdout, stderr } = call('DEL', options);
      if (status !== 0 || stdout !== '' || stderr !== '')
        throw new Error(`DEL answered ${status}: ${stdout}${stderr}`);
    },
    cli: (args, stdin = '') => {
      const started = performance.now();
      const { exitCode, stdout, stderr } = Bun.spawnSync(commandOf({ args }), {
        env: { PATH, NO_COLOR: '1' },
        cwd: folder,
        stdin: new TextEncoder().encode(stdin),
        stdout: 'pipe',
        stderr: 'pipe',
      });
      const durationMs = performance.now() - started;
      return { status: exitCode, stdout: stdout.toString(), stderr: stderr.toString(), durationMs };
    },
    run: (...command) => runIn(name, ...command),
  };
}

/** The result of an ADD that succeeded; throws when it did not. */
export function resultOf({ status, stdout, stderr }: Answer): Result {
  if (status !== 0 || stderr !== '') throw new Error(`ADD answered ${status}: ${stdout}${stderr}`);
  return JSON.parse(stdout) as Result;
}

/** The error of a call that failed: standard output must hold that and nothing else, standard error nothing. */
export function errorOf({ status, stdout, stderr }: Answer): ErrorAnswer {
  if (status !== 1 || stderr !== '') throw new Error(`answered ${status}: ${stdout}${stderr}`);
  return JSON.parse(stdout) as ErrorAnswer;
}

/** The first IPv4 address that a result gives the pod, without its prefix length. */
export function addressOf(result: Result): string {
  return result.ips[0]?.address.split('/')[0] ?? '';
}

type Row = Readonly<Record<string, unknown>>;

/** What `dataDir` says of attachments, table by table; empty tables when there is no state file. */
export function recordsOf(dataDir: string): Record<string, readonly Row[]> {
  const tables = ['attachment', 'address', 'usage', 'claim'];
  if (!existsSync(join(dataDir, 'state.db')))
    return Object.fromEntries(tables.map((table) => [table, []]));
  // A copy: a reader of the file itself would leave its traces beside it.
  const copy = mkdtempSync(join(tmpdir(), 'cube-test-state-'));
  try {
    for (const file of ['state.db', 'state.db-wal'])
      if (existsSync(join(dataDir, file))) copyFileSync(join(dataDir, file), join(copy, file));
    const db = new Database(join(copy, 'state.db'));
    // Whoever makes the file writes its schema a moment later.
    const made = db.query("SELECT 1 FROM sqlite_schema WHERE name = 'claim'").all().length > 0;
    const rows = Object.fromEntries(
      tables.map((table) => [
        table,
        made ? (db.query(`SELECT * FROM ${table}`).all() as Row[]) : [],
      ]),
    );
    db.close();
    return rows;
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

/** The tables of a state file that holds nothing. */
export const NO_RECORDS = { attachment: [], address: [], usage: [], claim: [] };

/** Joins the node to another netns by a veth pair, of which that one's end is `in0`. */
export function joinTo(node: Node, ifname: string, netns: string): void {
  const peer = ['peer', 'name', 'in0', 'netns', netns.replace('/run/netns/', '')];
  node.run('ip', 'link', 'add', ifname, 'type', 'veth', ...peer);
}
