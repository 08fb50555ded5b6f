import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
  writeSync,
  constants,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { linkNames } from './kernel-state.ts';
import { type Node, errorOf, makeNode, run } from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

type Line = Readonly<Record<string, unknown>>;

function linesOf(file: string): Line[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);
}

describe.skipIf(skip)('the log', () => {
  test('JSON: a line per step, in a folder that is made', () => {
    const node = makeNode();
    const netns = node.addPod();
    node.add({ netns });
    const lines = linesOf(node.logFile);
    expect(lines[0]).toEqual({
      level: 'info',
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      pid: expect.any(Number),
      container: 'pod-a',
      netns,
      network: 'podnet',
      ifname: 'eth0',
      msg: 'CNI ADD',
    });
    expect(lines).toContainEqual(expect.objectContaining({ msg: 'Allocated IP 10.7.0.2/24' }));
    const steps = lines.filter(({ operation }) => operation !== undefined);
    expect(steps.map(({ operation }) => operation)).toContain('nft.batch');
    for (const step of steps)
      expect(step).toEqual({
        level: 'info',
        time: expect.any(String),
        pid: expect.any(Number),
        container: 'pod-a',
        netns: expect.stringMatching(new RegExp(`^(host|${netns})$`)),
        network: 'podnet',
        ifname: 'eth0',
        operation: expect.stringMatching(/^\w+\.\w+$/),
        durationMs: expect.any(Number),
        msg: expect.stringMatching(/^(ip|bridge|nft|sysctl) /),
      });
    expect(lines.at(-1)).toMatchObject({ msg: 'CNI ADD done', durationMs: expect.any(Number) });
  });

  test('text: a line per step that people read', () => {
    const node = makeNode();
    const netns = node.addPod();
    node.add({ netns, config: node.config({ logFormat: 'text' }) });
    const text = readFileSync(node.logFile, 'utf8');
    const time = String.raw`^\d{4}-\d\d-\d\dT[\d:.]+Z`;
    expect(text).toMatch(
      new RegExp(`${time} \\[INFO\\] Allocated IP 10\\.7\\.0\\.2/24 .*container=pod-a`, 'm'),
    );
    expect(text).toMatch(
      new RegExp(
        `${time} \\[INFO\\] ip link set eth0 up .*netns=${netns} operation=link\\.set durationMs=[\\d.]+$`,
        'm',
      ),
    );
    for (const line of text.split('\n').slice(0, -1)) expect(line).toMatch(new RegExp(time));
  });

  test('an error has its code', () => {
    const node = makeNode();
    const config = node.config({ ipam: { type: 'cube-ipam', ranges: [] } });
    const { msg, code } = errorOf(node.call('ADD', { netns: node.addPod(), config }));
    expect(linesOf(node.logFile)).toContainEqual(
      expect.objectContaining({ level: 'error', msg, code, container: 'pod-a' }),
    );
  });

  test.each([
    ['error', 0, 1],
    ['silent', 0, 0],
    ['info', 10, 2],
  ])('logLevel %s', (logLevel, atLeast, errors) => {
    const node = makeNode();
    const config = node.config({ logLevel });
    const netns = node.addPod();
    node.add({ netns, config });
    expect(existsSync(node.logFile) ? linesOf(node.logFile).length : 0).toBeGreaterThanOrEqual(
      atLeast,
    );
    const before = existsSync(node.logFile) ? linesOf(node.logFile).length : 0;
    errorOf(node.call('ADD', { netns, config }));
    const lines = existsSync(node.logFile) ? linesOf(node.logFile) : [];
    expect(lines.slice(before)).toHaveLength(errors);
  });

  test('never holds the environment or the configuration', () => {
    const node = makeNode();
    const netns = node.addPod();
    const config = node.config({ args: { token: 'SECRET-IN-STDIN' } });
    const env = { TOKEN: 'SECRET-IN-ENV', CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAME=SECRET-IN-ARGS' };
    node.add({ netns, config, env });
    errorOf(node.call('ADD', { netns, config, env }));
    errorOf(node.call('CHECK', { netns, config, env }));
    node.del({ config, env });
    expect(readFileSync(node.logFile, 'utf8')).not.toContain('SECRET');
  });

  test('a message that holds a line break stays one line', () => {
    const node = makeNode();
    for (const logFormat of ['json', 'text']) {
      const config = node.config({ logFormat, bridge: 'a\n[ERROR] forged' });
      errorOf(node.call('ADD', { netns: node.addPod(), config }));
    }
    const lines = readFileSync(node.logFile, 'utf8').split('\n').slice(0, -1);
    expect(lines).toHaveLength(4);
    for (const line of lines) expect(line).toMatch(/^(\{.*\}|\d{4}-.*)$/);
  });
});

describe.skipIf(skip)('rotation', () => {
  test('at logMaxBytes, with one old file', () => {
    const node = makeNode();
    const config = node.config({ logMaxBytes: 8192 });
    const netns = node.addPod();
    for (let i = 0; i < 6; i += 1) {
      node.add({ netns, config });
      node.del({ config });
    }
    const folder = join(node.logFile, '..');
    expect(readdirSync(folder).toSorted()).toEqual(['plugin.log', 'plugin.log.1']);
    for (const file of ['plugin.log', 'plugin.log.1']) {
      const path = join(folder, file);
      // Whole calls: one that is longer than the limit is not torn apart.
      expect(statSync(path).size).toBeLessThan(2 * 8192);
      expect(linesOf(path)[0]).toMatchObject({ msg: expect.stringMatching(/^CNI (ADD|DEL)$/) });
    }
    expect(linesOf(node.logFile).at(-1)).toMatchObject({ msg: 'CNI DEL done' });
  });

  test('by many calls at once loses no line of the newest', async () => {
    const node = makeNode();
    const config = node.config({ logMaxBytes: 4096 });
    await Promise.all(
      Array.from(
        { length: 30 },
        (_, i) => node.start('DEL', { containerId: `c${i}`, config }).answer,
      ),
    );
    const folder = join(node.logFile, '..');
    const lines = readdirSync(folder).flatMap((file) => linesOf(join(folder, file)));
    expect(readdirSync(folder)).toHaveLength(2);
    for (const line of lines) expect(line).toMatchObject({ level: 'info' });
  });
});

function readOnly(node: Node): string {
  const folder = join(node.folder, 'read-only');
  mkdirSync(folder);
  run('mount', '-t', 'tmpfs', '-o', 'ro', 'tmpfs', folder);
  onTestFinished(() => void run('umount', folder));
  return folder;
}

describe.skipIf(skip)('a log that cannot be written fails and delays nothing', () => {
  test.each<[string, (node: Node) => string]>([
    ['in a read-only folder', (node) => join(readOnly(node), 'plugin.log')],
    ['in a folder that cannot be made', (node) => join(readOnly(node), 'below/plugin.log')],
    ['on a full disk', () => '/dev/full'],
    [
      'a FIFO without a reader',
      (node) => {
        run('mkfifo', join(node.folder, 'fifo'));
        return join(node.folder, 'fifo');
      },
    ],
    [
      'a FIFO that is full',
      (node) => {
        const path = join(node.folder, 'fifo');
        run('mkfifo', path);
        const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
        onTestFinished(() => closeSync(fd));
        writeSync(fd, Buffer.alloc(65536));
        return path;
      },
    ],
    ['a folder', (node) => node.folder],
    [
      'below a file',
      (node) => {
        writeFileSync(join(node.folder, 'file'), '');
        return join(node.folder, 'file/plugin.log');
      },
    ],
    [
      'a symbolic link to itself',
      (node) => {
        run('ln', '-s', join(node.folder, 'loop'), join(node.folder, 'loop'));
        return join(node.folder, 'loop');
      },
    ],
  ])('%s', (_what, make) => {
    const node = makeNode();
    const netns = node.addPod();
    const config = node.config({ logFile: make(node) });
    for (const verb of ['ADD', 'DEL']) {
      const answer = node.call(verb, { netns, config });
      expect(answer).toMatchObject({ status: 0, stderr: '' });
      expect(answer.durationMs).toBeLessThan(2000);
    }
    expect(linkNames(node.netns)).toEqual([]);
  });
});

function mode(path: string): string {
  return (statSync(path).mode & 0o7777).toString(8);
}

describe.skipIf(skip)('nobody but root reads', () => {
  test.each(['022', '000', '777'])('state and log, under umask %s', (umask) => {
    const node = makeNode();
    const under = ['sh', '-c', `umask ${umask}; exec "$@"`, 'sh'];
    const config = node.config({ dataDir: join(node.folder, 'deep/data') });
    node.add({ netns: node.addPod(), config, under });
    expect(mode(join(node.folder, 'deep/data'))).toBe('700');
    for (const file of readdirSync(join(node.folder, 'deep/data')))
      expect([file, mode(join(node.folder, 'deep/data', file))]).toEqual([file, '600']);
    expect(readdirSync(join(node.folder, 'deep/data'))).toContain('state.db');
    expect(mode(node.logFile)).toBe('600');
  });

  test('a data folder that was there already', () => {
    const node = makeNode();
    mkdirSync(node.dataDir, { mode: 0o755 });
    node.add({ netns: node.addPod(), under: ['sh', '-c', 'umask 0; exec "$@"', 'sh'] });
    for (const file of readdirSync(node.dataDir))
      expect([file, mode(join(node.dataDir, file))]).toEqual([file, '600']);
  });
});
