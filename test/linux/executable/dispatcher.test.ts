/** How a call is taken apart before anything is done: the checks of the reference's dispatcher (pkg/skel of libcni), in their order. */
import { existsSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { requirement } from '../../requirements.ts';
import { ipAddresses, kernelState, linkNames } from './kernel-state.ts';
import {
  type Call,
  EXECUTABLE,
  NO_RECORDS,
  type Node,
  errorOf,
  makeNode,
  netnsPath,
  recordsOf,
} from './node.ts';

const skip = requirement('root', 'iproute2', 'nftables', 'executable');

const ALL_VERSIONS = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'];

const REFERENCE = '/usr/lib/cni/bridge';

/** A call that is refused: what it is, its verb and the rest of it, and the error. */
interface Row {
  readonly what: string;
  readonly verb: string;
  readonly call?: Call;
  readonly error: { readonly code: number; readonly msg: string; readonly details?: string };
  /** Why the reference plugins of before 1.1.0, which a machine is likely to have, answer otherwise. */
  readonly notCompared?: 'older' | 'another order';
}

const SOUND: Call = { netns: '/run/netns/nowhere' };

function env(variables: Readonly<Record<string, string>>): Call {
  return { ...SOUND, env: variables };
}

function stdin(text: string): Call {
  return { ...SOUND, stdin: text };
}

function stdinOf(config: Readonly<Record<string, unknown>>): Call {
  return stdin(JSON.stringify(config));
}

/** Sound but for the version, which no plugin supports. */
const FUTURE = { cniVersion: '9.0.0', name: 'podnet' };

const environmentRows: readonly Row[] = [
  {
    what: 'an unknown verb',
    verb: 'FOO',
    error: { code: 4, msg: 'unknown CNI_COMMAND: FOO' },
  },
  {
    what: 'a verb in small letters',
    verb: 'add',
    error: { code: 4, msg: 'unknown CNI_COMMAND: add' },
  },
  {
    what: 'all that ADD needs is missing',
    verb: 'ADD',
    call: env({ CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '', CNI_PATH: '' }),
    error: {
      code: 4,
      msg: 'required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing',
    },
  },
  {
    what: 'two variables of CHECK are missing',
    verb: 'CHECK',
    call: env({ CNI_CONTAINERID: '', CNI_NETNS: '' }),
    error: { code: 4, msg: 'required env variables [CNI_CONTAINERID,CNI_NETNS] missing' },
  },
  {
    what: 'DEL needs no netns, but the rest',
    verb: 'DEL',
    call: env({ CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '', CNI_PATH: '' }),
    error: { code: 4, msg: 'required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_PATH] missing' },
  },
  {
    what: 'GC needs CNI_PATH and nothing else',
    verb: 'GC',
    call: env({ CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '', CNI_PATH: '' }),
    error: { code: 4, msg: 'required env variables [CNI_PATH] missing' },
    notCompared: 'older',
  },
  {
    what: 'STATUS needs CNI_PATH and nothing else',
    verb: 'STATUS',
    call: env({ CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '', CNI_PATH: '' }),
    error: { code: 4, msg: 'required env variables [CNI_PATH] missing' },
    notCompared: 'older',
  },
  {
    what: 'a container id that begins with a dash',
    verb: 'ADD',
    call: env({ CNI_CONTAINERID: '-rf' }),
    error: { code: 4, msg: 'invalid characters in containerID', details: '-rf' },
  },
  {
    what: 'a container id with a slash',
    verb: 'DEL',
    call: env({ CNI_CONTAINERID: 'a/b' }),
    error: { code: 4, msg: 'invalid characters in containerID', details: 'a/b' },
  },
  {
    what: 'a link name of 16 bytes',
    verb: 'ADD',
    call: env({ CNI_IFNAME: 'e'.repeat(16) }),
    error: {
      code: 4,
      msg: 'interface name is too long',
      details: 'interface name should be less than 16 characters',
    },
  },
  {
    what: 'a link name that is a folder',
    verb: 'ADD',
    call: env({ CNI_IFNAME: '..' }),
    error: { code: 4, msg: 'interface name is . or ..' },
  },
  ...['a/b', 'a:b', 'a b', 'a\tb'].map((ifname): Row => ({
    what: `the link name ${JSON.stringify(ifname)}`,
    verb: 'CHECK',
    call: env({ CNI_IFNAME: ifname }),
    error: { code: 4, msg: 'interface name contains / or : or whitespace characters' },
  })),
];

const stdinRows: readonly Row[] = [
  {
    what: 'no network name',
    verb: 'ADD',
    call: stdinOf({ cniVersion: '1.0.0' }),
    error: { code: 7, msg: 'missing network name' },
  },
  {
    what: 'an empty network name',
    verb: 'DEL',
    call: stdinOf({ cniVersion: '1.0.0', name: '' }),
    error: { code: 7, msg: 'missing network name' },
  },
  {
    what: 'a network name with a slash',
    verb: 'ADD',
    call: stdinOf({ cniVersion: '1.0.0', name: 'a/b' }),
    error: { code: 7, msg: 'invalid characters found in network name', details: 'a/b' },
  },
  ...['0.1.0', '0.3.1', '', undefined].map((cniVersion): Row => ({
    what: `CHECK of the version ${JSON.stringify(cniVersion)}`,
    verb: 'CHECK',
    call: stdinOf({ cniVersion, name: 'podnet' }),
    error: { code: 1, msg: 'config version does not allow CHECK' },
  })),
  ...['GC', 'STATUS'].map((verb): Row => ({
    what: `${verb} of the version 1.0.0`,
    verb,
    call: stdinOf({ cniVersion: '1.0.0', name: 'podnet' }),
    error: { code: 1, msg: `config version does not allow ${verb}` },
    notCompared: 'older',
  })),
];

/** Two things are wrong: which of them is told shows the order of the checks. */
const orderRows: readonly Row[] = [
  {
    what: 'an unknown verb comes before variables',
    verb: 'FOO',
    call: env({ CNI_CONTAINERID: '-rf', CNI_PATH: '' }),
    error: { code: 4, msg: 'unknown CNI_COMMAND: FOO' },
    notCompared: 'another order',
  },
  {
    what: 'a malformed container id comes before a malformed link name',
    verb: 'ADD',
    call: env({ CNI_CONTAINERID: '-rf', CNI_IFNAME: '..' }),
    error: { code: 4, msg: 'invalid characters in containerID', details: '-rf' },
  },
  {
    what: 'a malformed variable comes before a missing one',
    verb: 'ADD',
    call: env({ CNI_IFNAME: '..', CNI_PATH: '' }),
    error: { code: 4, msg: 'interface name is . or ..' },
    notCompared: 'older',
  },
  {
    what: 'variables come before standard input',
    verb: 'ADD',
    call: { ...env({ CNI_PATH: '' }), stdin: 'not JSON' },
    error: { code: 4, msg: 'required env variables [CNI_PATH] missing' },
  },
  {
    what: 'a missing name comes before the version',
    verb: 'ADD',
    call: stdinOf({ cniVersion: '9.0.0' }),
    error: { code: 7, msg: 'missing network name' },
  },
  {
    what: 'a malformed name comes before the version',
    verb: 'ADD',
    call: stdinOf({ cniVersion: '9.0.0', name: '../x' }),
    error: { code: 7, msg: 'invalid characters found in network name', details: '../x' },
  },
  {
    what: "the verb's version comes before whether there is such a version",
    verb: 'CHECK',
    call: stdinOf({ cniVersion: '0.0.9', name: 'podnet' }),
    error: { code: 1, msg: 'config version does not allow CHECK' },
  },
];

const rows = [...environmentRows, ...stdinRows, ...orderRows];

/** What is the same whoever answers. */
function told(node: Node, { verb, call }: Row, program: string): unknown {
  const { status, stdout, stderr } = node.call(verb, { ...SOUND, ...call, program });
  const { code, msg, details } = JSON.parse(stdout) as Row['error'];
  return { status, stderr, code, msg, details };
}

/** A node and an error of it, which must have left nothing. */
function refused(verb: string, call: Call | ((node: Node) => Call)): ReturnType<typeof errorOf> {
  const node = makeNode();
  const before = kernelState(node.netns);
  const error = errorOf(node.call(verb, typeof call === 'function' ? call(node) : call));
  expect(kernelState(node.netns)).toEqual(before);
  expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  return error;
}

describe.skipIf(skip)('a call that is refused', () => {
  test.each(rows)('$what: $error.code', ({ verb, call, error }) => {
    const answer = refused(verb, { ...SOUND, ...call });
    expect(answer).toEqual({ cniVersion: '1.1.0', ...error });
  });

  test.each([
    ['no text', ''],
    ['half of it', '{"cniVersion": "1.0.0", "name": "podn'],
    ['a word', 'nonsense'],
    ['a list', '[]'],
  ])('what is no JSON object is not decoded: %s', (_what, text) => {
    const error = refused('ADD', stdin(text));
    expect(error).toMatchObject({
      code: 6,
      msg: expect.stringMatching(/^error unmarshall network config: \S/),
    });
  });

  test('a version that no plugin supports names those that this one does', () => {
    const known = ALL_VERSIONS.map((version) => `"${version}"`).join(' ');
    for (const verb of ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS'])
      expect(refused(verb, stdinOf(FUTURE))).toEqual({
        cniVersion: '1.1.0',
        code: 1,
        msg: 'incompatible CNI versions',
        details: `config is "9.0.0", plugin supports [${known}]`,
      });
  });

  test('versions are compared as texts', () => {
    for (const cniVersion of ['1.0', '01.0.0', 'v1.0.0', '1.0.0 ', '1.0.1'])
      expect(refused('ADD', stdinOf({ ...FUTURE, cniVersion }))).toMatchObject({ code: 1 });
  });

  test('standard input that cannot be read', () => {
    const error = refused('ADD', {
      ...SOUND,
      under: ['sh', '-c', 'exec "$@" </', 'sh'],
    });
    expect(error).toMatchObject({
      code: 5,
      msg: expect.stringMatching(/^error reading from stdin: .*EISDIR/),
    });
  });

  test('an error is told in the version of the question', () => {
    for (const cniVersion of ALL_VERSIONS) {
      const error = refused('ADD', (node) => ({
        ...SOUND,
        config: node.config({ cniVersion, mtu: -1 }),
      }));
      expect(error).toMatchObject({ cniVersion, code: 7 });
    }
  });

  test('an error is JSON with four spaces and without a final line break', () => {
    const { status, stdout, stderr } = makeNode().call('FOO');
    expect([status, stderr]).toEqual([1, '']);
    expect(stdout).toBe(
      '{\n    "cniVersion": "1.1.0",\n    "code": 4,\n    "msg": "unknown CNI_COMMAND: FOO"\n}',
    );
  });
});

describe.skipIf(skip || requirement('cni-plugins'))('as the reference bridge', () => {
  test.each(rows.filter(({ notCompared }) => notCompared === undefined))('$what', (row) => {
    const node = makeNode();
    expect(told(node, row, EXECUTABLE)).toEqual(told(node, row, REFERENCE));
  });

  test.each(['', '{"name', 'nonsense', '[]'])('what is no JSON object: %j', (text) => {
    const node = makeNode();
    const [ours, theirs] = [EXECUTABLE, REFERENCE].map((program) => {
      const answer = node.call('ADD', { ...stdin(text), program });
      const { code, msg } = JSON.parse(answer.stdout) as Row['error'];
      return [answer.status, answer.stderr, code, msg.split(':')[0]];
    });
    expect(ours).toEqual(theirs);
  });

  test('a version that no plugin supports', () => {
    const node = makeNode();
    const [ours, theirs] = [EXECUTABLE, REFERENCE].map((program) => {
      const answer = node.call('ADD', { ...stdinOf(FUTURE), program });
      const { code, msg, details = '' } = JSON.parse(answer.stdout) as Row['error'];
      return [answer.status, answer.stderr, code, msg, details.split('[')[0]];
    });
    expect(ours).toEqual(theirs);
  });

  test('VERSION is one line of the same keys', () => {
    const node = makeNode();
    const [ours, theirs] = [EXECUTABLE, REFERENCE].map((program) => {
      const { status, stdout, stderr } = node.call('VERSION', { program });
      const answer = JSON.parse(stdout) as Record<string, unknown>;
      return [status, stderr, stdout.split('\n').slice(1), Object.keys(answer)];
    });
    expect(ours).toEqual(theirs);
  });

  test('keys in any case', () => {
    const node = makeNode();
    const pods = [EXECUTABLE, REFERENCE].map((program) => {
      const pod = node.addPod();
      const containerId = program === REFERENCE ? 'theirs' : 'ours';
      const ipam = { TYPE: 'host-local', SUBNET: '10.7.0.0/24', DATADIR: node.dataDir };
      const { dataDir, logFile } = node;
      const config = {
        CNIVERSION: '1.0.0',
        NAME: 'podnet',
        Type: 'bridge',
        BRIDGE: 'cni7',
        ISGATEWAY: true,
        MTU: 1400,
        dns: { NameServers: ['10.0.0.53'] },
        ipam,
        dataDir,
        logFile,
      };
      const result = node.add({ netns: pod, containerId, config, program });
      return {
        ...result,
        interfaces: result.interfaces.map(({ name }) => name.replace(/^veth.*/, 'veth')),
        ips: result.ips.map(({ gateway }) => gateway),
      };
    });
    expect(pods[0]).toMatchObject({ ips: ['10.7.0.1'], dns: { nameservers: ['10.0.0.53'] } });
    expect(pods[0]).toEqual(pods[1]);
  });
});

describe.skipIf(skip)('VERSION', () => {
  test('is answered with the environment of a probe, and standard input is not read', () => {
    const node = makeNode();
    const dummy = { CNI_NETNS: 'dummy', CNI_IFNAME: 'dummy', CNI_PATH: 'dummy' };
    for (const variables of [
      dummy,
      { ...dummy, CNI_CONTAINERID: '../..', CNI_IFNAME: 'a/b' },
      { CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '', CNI_PATH: '' },
    ])
      expect(node.call('VERSION', { env: variables, stdin: 'not JSON' })).toMatchObject({
        status: 0,
        stdout: `${JSON.stringify({ cniVersion: '1.1.0', supportedVersions: ALL_VERSIONS })}\n`,
        stderr: '',
      });
  });

  test('does not wait for the end of standard input', () => {
    const node = makeNode();
    const answer = node.call('VERSION', {
      under: ['sh', '-c', 'sleep 5 | "$@"; echo $?', 'sh'],
    });
    expect(answer.stdout).toMatch(/^\{.*\}\n0\n$/);
    // The shell waits for `sleep`; standard input as a folder would be an error for who reads it.
    expect(node.call('VERSION', { under: ['sh', '-c', 'exec "$@" </', 'sh'] }).status).toBe(0);
  });

  test('leaves no state and no log', () => {
    const node = makeNode();
    node.call('VERSION');
    expect([existsSync(node.dataDir), existsSync(node.logFile)]).toEqual([false, false]);
  });
});

describe.skipIf(skip)('without CNI_COMMAND', () => {
  test.each(['cube-cni', 'bridge', 'loopback', 'firewall'])(
    '%s says what it is, on standard error',
    (name) => {
      const node = makeNode();
      const program = join(node.folder, name);
      symlinkSync(EXECUTABLE, program);
      const { status, stdout, stderr } = node.call('', { program, stdin: 'not JSON' });
      expect([status, stdout]).toEqual([0, '']);
      const [first, ...others] = stderr.split('\n');
      expect(first).toMatch(new RegExp(`^CNI ${name} plugin v\\d+\\.\\d+\\.\\d+$`));
      expect(others).toEqual([`CNI protocol versions supported: ${ALL_VERSIONS.join(', ')}`, '']);
    },
  );
});

describe.skipIf(skip)('cniVersion', () => {
  test.each([
    ['is missing', {}],
    ['is empty', { cniVersion: '' }],
    ['is null', { cniVersion: null }],
  ])('0.1.0 is meant when it %s', (_what, changes) => {
    const node = makeNode();
    const { cniVersion: _named, ...config } = node.config();
    const answer = node.call('ADD', { netns: node.addPod(), config: { ...config, ...changes } });
    expect(answer).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(answer.stdout)).toEqual({
      cniVersion: '0.1.0',
      ip4: {
        ip: '10.7.0.2/24',
        gateway: '10.7.0.1',
        routes: [{ dst: '0.0.0.0/0', gw: '10.7.0.1' }],
      },
      dns: {},
    });
  });
});

describe.skipIf(skip)("the plugin's own netns", () => {
  const own = "plugin's netns and netns from CNI_NETNS should not be the same";

  test.each(['ADD', 'DEL'])('is refused in %s, and after what is wrong in the rest', (verb) => {
    expect(refused(verb, { netns: '/proc/self/ns/net' })).toMatchObject({ code: 8, msg: own });
    expect(refused(verb, (node) => ({ netns: netnsPath(node.netns) }))).toMatchObject({ code: 8 });
    expect(refused(verb, { ...stdinOf(FUTURE), netns: '/proc/self/ns/net' })).toMatchObject({
      code: 1,
    });
  });

  test.each(['1', 'TRUE', 'true', 'True'])(
    'is not looked at with CNI_NETNS_OVERRIDE=%s',
    (value) => {
      const node = makeNode();
      node.del({ netns: '/proc/self/ns/net', env: { CNI_NETNS_OVERRIDE: value } });
      expect(linkNames(node.netns)).toEqual([]);
    },
  );

  test.each(['', '0', 'false', 'yes', '11'])('is with CNI_NETNS_OVERRIDE=%j', (value) => {
    expect(
      refused('DEL', { netns: '/proc/self/ns/net', env: { CNI_NETNS_OVERRIDE: value } }),
    ).toMatchObject({ code: 8, msg: own });
  });

  test('gets a link where CNI_NETNS_OVERRIDE says that it may', () => {
    const node = makeNode();
    const call = { netns: '/proc/self/ns/net', env: { CNI_NETNS_OVERRIDE: '1' } };
    expect(node.add(call).interfaces[2]).toMatchObject({ name: 'eth0' });
    expect(ipAddresses(node.netns, 'eth0')).toEqual(['10.7.0.2/24']);
    node.del(call);
    expect(linkNames(node.netns)).toEqual([]);
    expect(recordsOf(node.dataDir)).toEqual(NO_RECORDS);
  });
});
