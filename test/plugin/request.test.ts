import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { aboutText } from '../../plugin/about.ts';
import { parseCallOptions } from '../../plugin/call-options.ts';
import { CniError, formatError } from '../../plugin/cni/error.ts';
import {
  type Environment,
  type Request,
  parseRequest,
  verbOf,
  versionAnswer,
} from '../../plugin/cni/request.ts';
import { SUPPORTED_VERSIONS } from '../../plugin/cni/version.ts';
import { nearNames, names, PROTOTYPE_NAMES } from '../arbitraries/request.ts';
import { refusal } from './refusal.ts';

const ADD: Environment = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'c1',
  CNI_NETNS: '/run/netns/pod1',
  CNI_IFNAME: 'eth0',
  CNI_ARGS: '',
  CNI_PATH: '/opt/cni/bin',
};
const CONFIG = '{"cniVersion": "1.0.0", "name": "net"}';

function request(change: Environment, stdin = CONFIG): Request {
  return parseRequest({ ...ADD, ...change }, stdin);
}

/** The answer to a call that is refused: code, message and details in one line. */
function answer(change: Environment, stdin = CONFIG): string {
  return refusal(() => request(change, stdin));
}

/** What the specification calls a name, said another way than in the code under test. */
function isName(text: string): boolean {
  return Array.from(text).every(
    (c, i) => /[a-z0-9]/i.test(c) || (i > 0 && ['_', '.', '-'].includes(c)),
  );
}

describe('the environment', () => {
  it.each([
    [{ CNI_COMMAND: 'FOO' }, '4 unknown CNI_COMMAND: FOO'],
    [{ CNI_COMMAND: 'add' }, '4 unknown CNI_COMMAND: add'],
    [{ CNI_COMMAND: 'toString' }, '4 unknown CNI_COMMAND: toString'],
    [
      { CNI_CONTAINERID: '', CNI_NETNS: undefined },
      '4 required env variables [CNI_CONTAINERID,CNI_NETNS] missing',
    ],
    [
      { CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '', CNI_PATH: '' },
      '4 required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing',
    ],
    [{ CNI_COMMAND: 'CHECK', CNI_NETNS: '' }, '4 required env variables [CNI_NETNS] missing'],
    [
      { CNI_COMMAND: 'DEL', CNI_NETNS: '', CNI_IFNAME: '' },
      '4 required env variables [CNI_IFNAME] missing',
    ],
    [{ CNI_COMMAND: 'GC', CNI_PATH: '' }, '4 required env variables [CNI_PATH] missing'],
    [{ CNI_COMMAND: 'STATUS', CNI_PATH: '' }, '4 required env variables [CNI_PATH] missing'],
    [{ CNI_CONTAINERID: '../c1' }, '4 invalid characters in containerID | ../c1'],
    [{ CNI_CONTAINERID: '-c1' }, '4 invalid characters in containerID | -c1'],
    [{ CNI_CONTAINERID: 'c1\n' }, '4 invalid characters in containerID | c1\n'],
    [
      { CNI_IFNAME: 'eth0123456789abc' },
      '4 interface name is too long | interface name should be less than 16 characters',
    ],
    [
      { CNI_IFNAME: 'ééééééée0' },
      '4 interface name is too long | interface name should be less than 16 characters',
    ],
    [{ CNI_IFNAME: '.' }, '4 interface name is . or ..'],
    [{ CNI_IFNAME: '..' }, '4 interface name is . or ..'],
    [{ CNI_IFNAME: 'a/b' }, '4 interface name contains / or : or whitespace characters'],
    [{ CNI_IFNAME: '../eth0' }, '4 interface name contains / or : or whitespace characters'],
    [{ CNI_IFNAME: 'eth:0' }, '4 interface name contains / or : or whitespace characters'],
    [{ CNI_IFNAME: 'eth 0' }, '4 interface name contains / or : or whitespace characters'],
    [
      { CNI_IFNAME: 'eth%d' },
      '4 interface name contains % | the kernel would take it for a template',
    ],
  ])('%j is answered by %j', (change, expected) => {
    expect(answer(change)).toBe(expected);
  });

  it('may lack the netns in DEL', () => {
    expect(request({ CNI_COMMAND: 'DEL', CNI_NETNS: '' }).netns).toBe('');
    expect(request({ CNI_COMMAND: 'DEL', CNI_NETNS: undefined }).netns).toBe('');
  });

  it('is checked variable by variable before it is found incomplete', () => {
    expect(answer({ CNI_CONTAINERID: '/', CNI_NETNS: '', CNI_IFNAME: '..' })).toMatch(
      /^4 invalid characters in containerID/,
    );
    expect(answer({ CNI_NETNS: '', CNI_IFNAME: '..' })).toBe('4 interface name is . or ..');
  });

  it('is not asked for what a verb does not need', () => {
    const bare = { CNI_CONTAINERID: '/', CNI_NETNS: '', CNI_IFNAME: '..' };
    expect(answer({ ...bare, CNI_COMMAND: 'GC' })).toBe('1 config version does not allow GC');
  });

  it('takes every name that the specification allows, as it is', () => {
    fc.assert(
      fc.property(names(), names(), (containerId, network) => {
        const stdin = JSON.stringify({ cniVersion: '0.4.0', name: network });
        const ifname = containerId.slice(0, 15);
        expect(request({ CNI_CONTAINERID: containerId, CNI_IFNAME: ifname }, stdin).key).toEqual({
          network,
          containerId,
          ifname,
        });
      }),
    );
  });

  it('is refused by code 4 or taken as it is, whatever is in it', () => {
    fc.assert(
      fc.property(nearNames(), nearNames(), (containerId, ifname) => {
        const sound =
          isName(containerId) &&
          Buffer.from(ifname).length < 16 &&
          !['.', '..'].includes(ifname) &&
          !Array.from(ifname).some((c) => '/:%'.includes(c) || c.trim() === '');
        const change = { CNI_CONTAINERID: containerId, CNI_IFNAME: ifname };
        if (sound) expect(request(change).key).toMatchObject({ containerId, ifname });
        else expect(answer(change)).toMatch(/^4 /);
      }),
      { numRuns: 500 },
    );
  });

  it('takes names that mean something to JavaScript for what they are', () => {
    for (const name of PROTOTYPE_NAMES) expect(request({ CNI_IFNAME: name }).key.ifname).toBe(name);
  });
});

describe('the configuration on standard input', () => {
  it.each([
    ['', /^6 error unmarshall network config: \S/],
    ['{', /^6 error unmarshall network config: \S/],
    ['{"name": "net"} {}', /^6 error unmarshall network config: \S/],
    ['null', '6 error unmarshall network config: it is not a JSON object'],
    ['[]', '6 error unmarshall network config: it is not a JSON object'],
    ['"net"', '6 error unmarshall network config: it is not a JSON object'],
    ['{}', '7 missing network name'],
    ['{"name": ""}', '7 missing network name'],
    ['{"name": null}', '7 missing network name'],
    ['{"__proto__": {"name": "net"}}', '7 missing network name'],
    ['{"name": 5}', '6 error unmarshall network config: name is not a string'],
    ['{"name": "../net"}', '7 invalid characters found in network name | ../net'],
    ['{"name": "net\\n"}', '7 invalid characters found in network name | net\n'],
    [
      '{"name": "net", "cniVersion": 1}',
      '6 error unmarshall network config: cniVersion is not a string',
    ],
    [
      '{"name": "net", "cniVersion": "9.0.0"}',
      '1 incompatible CNI versions | config is "9.0.0", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]',
    ],
    [
      '{"name": "net", "cniVersion": "1.0.0 "}',
      '1 incompatible CNI versions | config is "1.0.0 ", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]',
    ],
  ])('%j is answered', (stdin, expected) => {
    if (typeof expected === 'string') expect(answer({}, stdin)).toBe(expected);
    else expect(answer({}, stdin)).toMatch(expected);
  });

  it('is looked at only when the environment is sound', () => {
    expect(answer({ CNI_NETNS: '' }, '{')).toBe('4 required env variables [CNI_NETNS] missing');
  });

  it('is asked for its name before its version', () => {
    expect(answer({}, '{"cniVersion": "9.0.0"}')).toBe('7 missing network name');
    expect(answer({}, '{"cniVersion": "9.0.0", "name": "/"}')).toMatch(/^7 invalid characters/);
  });

  it.each([
    ['CHECK', '0.3.1', '1 config version does not allow CHECK'],
    ['CHECK', '', '1 config version does not allow CHECK'],
    ['GC', '1.0.0', '1 config version does not allow GC'],
    ['GC', '0.4.0', '1 config version does not allow GC'],
    ['STATUS', '1.0.0', '1 config version does not allow STATUS'],
    ['STATUS', '0.3.0', '1 config version does not allow STATUS'],
  ])(
    '%s of a configuration of version %j is refused before its version is',
    (verb, version, expected) => {
      const stdin = JSON.stringify({ name: 'net', cniVersion: version });
      expect(answer({ CNI_COMMAND: verb }, stdin)).toBe(expected);
    },
  );

  it.each(['ADD', 'DEL', 'CHECK', 'GC', 'STATUS'])(
    '%s of every version that has it is taken',
    (verb) => {
      const first = { CHECK: 4, GC: 6, STATUS: 6 }[verb] ?? 0;
      for (const version of SUPPORTED_VERSIONS.slice(first)) {
        const stdin = JSON.stringify({ name: 'net', cniVersion: version, more: [1] });
        expect(request({ CNI_COMMAND: verb }, stdin)).toEqual({
          verb,
          key: { network: 'net', containerId: 'c1', ifname: 'eth0' },
          netns: '/run/netns/pod1',
          cniVersion: version,
          config: { name: 'net', cniVersion: version, more: [1] },
          stdin,
          args: '',
        });
      }
    },
  );

  it.each([
    '{"name": "net"}',
    '{"name": "net", "cniVersion": ""}',
    '{"name": "net", "cniVersion": null}',
  ])('%s is of the version before versions were written', (stdin) => {
    expect(request({}, stdin).cniVersion).toBe('0.1.0');
  });

  it('is read whatever the case of its keys, the last of several', () => {
    const stdin = `{"NAME": "net", "CNIVersion": "1.0.0", "ISGATEWAY": true, "isGateway": false,
      "Ipam": {"Type": "cube-ipam", "Ranges": [[{"Subnet": "10.0.0.0/24", "RangeStart": ""}]]},
      "RuntimeConfig": {"IPRanges": [[{"Subnet": "10.1.0.0/24"}]], "Mac": null}, "Other": {"NAME": 1}}`;
    expect(request({}, stdin).config).toEqual({
      name: 'net',
      cniVersion: '1.0.0',
      isGateway: false,
      ipam: { type: 'cube-ipam', ranges: [[{ subnet: '10.0.0.0/24', rangeStart: '' }]] },
      runtimeConfig: { ipRanges: [[{ subnet: '10.1.0.0/24' }]] },
      Other: { NAME: 1 },
    });
  });

  it('is a request or an error of the specification, whatever is in it', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          fc.string(),
          fc.json().map((j) => `{"name":${j}}`),
        ),
        (stdin) => {
          try {
            request({}, stdin);
          } catch (error) {
            expect(error).toBeInstanceOf(CniError);
            expect([1, 6, 7]).toContain((error as CniError).code);
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe('the answers', () => {
  it('to VERSION are one line with all versions', () => {
    expect(JSON.parse(versionAnswer())).toEqual({
      cniVersion: '1.1.0',
      supportedVersions: SUPPORTED_VERSIONS,
    });
    expect(versionAnswer()).toMatch(/^[^\n]*\n$/);
    expect(verbOf({ CNI_COMMAND: 'VERSION' })).toBe('VERSION');
  });

  it('to nothing asked are the lines that other programs read', () => {
    expect(aboutText('bridge')).toBe(
      'CNI bridge plugin vdev\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n',
    );
  });

  it('that are errors have four spaces, and details only where there are some', () => {
    expect(formatError(new CniError(7, 'missing network name'), '1.0.0')).toBe(
      [
        '{',
        '    "cniVersion": "1.0.0",',
        '    "code": 7,',
        '    "msg": "missing network name"',
        '}',
      ].join('\n'),
    );
    expect(formatError(new CniError(4, 'a "b"\n', 'c'), '0.4.0')).toBe(
      [
        '{',
        '    "cniVersion": "0.4.0",',
        '    "code": 4,',
        '    "msg": "a \\"b\\"\\n",',
        '    "details": "c"',
        '}',
      ].join('\n'),
    );
  });
});

describe('the arguments of a call', () => {
  it('ask for a plan, or for nothing', () => {
    expect(parseCallOptions([])).toEqual({ plan: undefined, detailedExitcode: false });
    expect(parseCallOptions(['--plan'])).toEqual({ plan: 'text', detailedExitcode: false });
    expect(parseCallOptions(['--plan=json', '--detailed-exitcode'])).toEqual({
      plan: 'json',
      detailedExitcode: true,
    });
    expect(parseCallOptions(['--plan=sh'])).toEqual({ plan: 'sh', detailedExitcode: false });
  });

  it('that nobody knows are refused by name', () => {
    for (const arg of ['--plan=yaml', 'toString', '__proto__', ''])
      expect(refusal(() => parseCallOptions([arg]))).toBe(
        `4 unknown argument ${arg} | a CNI call takes --plan, --plan=text, --plan=json, --plan=sh, --detailed-exitcode`,
      );
  });
});
