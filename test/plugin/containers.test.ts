/** Containers as the files of their runtimes tell of them, in folders made as those make them. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findContainers } from '../../plugin/process/containers.ts';

const ID = '6f1c9a77b0d24e5f8a3b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e6f7a8b9c0d1e2f';
const OTHER = `6f1c9b${ID.slice(6)}`;
const PID = 4711;
const UPTIME_SECONDS = 10_000;

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'cube-cni-containers-'));
  put('proc/uptime', `${UPTIME_SECONDS}.00 1.00\n`);
});
afterEach(() => rmSync(root, { recursive: true }));

function put(path: string, text: string): string {
  const file = join(root, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
}

/** A process that began so long ago. Its name is chosen to lead astray who reads stat by spaces. */
function putProcess(pid: number, agoSeconds: number): string {
  const ticks = (UPTIME_SECONDS - agoSeconds) * 100;
  const before = Array.from({ length: 18 }, (_each, i) => i).join(' ');
  put(`proc/${pid}/stat`, `${pid} (a) S 1 (b) S ${before} ${ticks} 0 0\n`);
  mkdirSync(join(root, `proc/${pid}/ns`));
  symlinkSync('net:[4026531840]', join(root, `proc/${pid}/ns/net`));
  return join(root, `proc/${pid}/ns/net`);
}

/** OCI's configuration of a container that joins a netns at a path, or gets one of its own. */
function config(path?: string): string {
  const network = path === undefined ? { type: 'network' } : { type: 'network', path };
  return JSON.stringify({ ociVersion: '1.2.0', linux: { namespaces: [{ type: 'pid' }, network] } });
}

const SHIM = 'io.containerd.runtime.v2.task';
const RUNTIMES = {
  containerd: `run/containerd/${SHIM}/k8s.io/ID/init.pid`,
  'containerd of k3s': `run/k3s/containerd/${SHIM}/k8s.io/ID/init.pid`,
  Docker: `run/docker/containerd/daemon/${SHIM}/moby/ID/init.pid`,
  'CRI-O and Podman': 'run/containers/storage/overlay-containers/ID/userdata/pidfile',
  'Podman on vfs': 'run/containers/storage/vfs-containers/ID/userdata/pidfile',
} as const;

function only(text: string): string | undefined {
  const { containers } = findContainers(text, root);
  expect(containers).toHaveLength(1);
  return containers[0]?.netnsPath;
}

function found(text: string): string[] {
  return findContainers(text, root).containers.map(({ id }) => id);
}

describe('a container', () => {
  it.each(Object.entries(RUNTIMES))('of %s is its process', (_runtime, file) => {
    const netns = putProcess(PID, 60);
    put(file.replace('ID', ID), `${PID}\n`);
    put(file.replace('ID', OTHER), '1');
    expect(only(ID)).toBe(netns);
    expect(only(ID.slice(0, 12))).toBe(netns);
    expect(only('6f1c9a')).toBe(netns);
  });

  it('is named by six digits of its id or more, and by nothing else', () => {
    putProcess(PID, 60);
    put(RUNTIMES.containerd.replace('ID', ID), String(PID));
    for (const text of ['6f1c9', '6f1c9g', '', '..', '../k8s.io', `${ID}0`, ID.toUpperCase()])
      expect(findContainers(text, root).containers, text).toEqual([]);
  });

  it('may be called otherwise, and is named by the whole of that', () => {
    const netns = putProcess(PID, 60);
    put(RUNTIMES.containerd.replace('ID', 'web_1.a'), String(PID));
    expect(only('web_1.a')).toBe(netns);
    expect(findContainers('web_1', root).containers).toEqual([]);
  });

  it('is one of several where several begin so, unless it is all of one', () => {
    const names = [ID, OTHER, ID.slice(0, 10)];
    for (const id of names) put(RUNTIMES.containerd.replace('ID', id), String(PID));
    expect(new Set(found('6f1c9a'))).toEqual(new Set([ID, ID.slice(0, 10)]));
    expect(found(ID.slice(0, 10))).toEqual([ID.slice(0, 10)]);
  });

  it('has no netns when its process has ended, also when another has got its number', () => {
    put(RUNTIMES.Docker.replace('ID', ID), String(PID));
    expect(only(ID)).toBeUndefined();
    const file = put(RUNTIMES.Docker.replace('ID', ID), String(PID));
    putProcess(PID, 60);
    const then = new Date(Date.now() - 3_600_000);
    utimesSync(file, then, then);
    expect(only(ID)).toBeUndefined();
  });

  it.each(['', '0', '-1', '../..', 'x'])('has none by a file that says %j', (text) => {
    put(RUNTIMES.Docker.replace('ID', ID), text);
    expect(only(ID)).toBeUndefined();
  });

  it('is in the netns of its configuration where that says one that is there', () => {
    const file = RUNTIMES.containerd.replace('ID/init.pid', `${ID}/config.json`);
    put(file, config('/run/netns/cni-1'));
    expect(only(ID)).toBeUndefined();
    put('run/netns/cni-1', '');
    expect(only(ID)).toBe(join(root, 'run/netns/cni-1'));
    // Of a process nothing tells that it is still the same.
    putProcess(PID, 60);
    put(file, config(`/proc/${PID}/ns/net`));
    expect(only(ID)).toBeUndefined();
    for (const text of [config(), '{"linux":{}}', 'null', '[', '{"linux":{"namespaces":[{}]}}']) {
      put(file, text);
      expect(only(ID), text).toBeUndefined();
    }
  });

  it('is looked for in places that are told', () => {
    const { containers, lookedIn } = findContainers(ID, root);
    expect(containers).toEqual([]);
    expect(lookedIn).toEqual([
      join(root, `run/containerd/${SHIM}/*`),
      join(root, `run/k3s/containerd/${SHIM}/*`),
      join(root, `run/docker/containerd/daemon/${SHIM}/*`),
      join(root, 'run/containers/storage/*'),
    ]);
  });
});
