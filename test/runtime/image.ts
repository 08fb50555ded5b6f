import { createHash } from 'node:crypto';
import { chmod, copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';

/** The image of the sandbox container, whose only work is to be there. */
export const PAUSE_IMAGE = 'cube-cni.test/pause:1';

/** A Unix in one static program, at /bin/busybox. */
export const BUSYBOX_IMAGE = 'cube-cni.test/busybox:1';

// As process 1 of its PID namespace it gets only signals that it asks for, and inherits orphans that it has to reap.
const PAUSE_SOURCE = `
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal) { _exit(signal == SIGTERM ? 0 : 1); }
static void reap(int signal) { while (waitpid(-1, 0, WNOHANG) > 0) continue; }

int main(void) {
  signal(SIGTERM, leave);
  signal(SIGINT, leave);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
`;

/** Makes the image of the sandbox container in a folder, with the machine's gcc; returns its archive. */
export async function makePauseImage(folder: string): Promise<string> {
  const pause = path.join(folder, 'pause');
  await mkdir(folder, { recursive: true });
  await execa({ input: PAUSE_SOURCE })`gcc -x c - -Os -static -s -o ${pause}`;
  return makeImage(path.join(folder, 'pause-image'), PAUSE_IMAGE, 'pause', pause);
}

/** Makes the image of containers in a folder, of the machine's busybox; returns its archive. */
export async function makeBusyboxImage(folder: string): Promise<string> {
  const image = path.join(folder, 'busybox-image');
  const archive = await makeImage(image, BUSYBOX_IMAGE, 'bin/busybox', '/bin/busybox');
  // A dynamic busybox finds no libc in its image, and the runtime would only say "no such file".
  await execa`chroot ${path.join(image, 'root')} /bin/busybox true`.catch((error: Error) => {
    throw new Error('/bin/busybox is not static: install busybox-static', { cause: error });
  });
  return archive;
}

/** An image of one layer with one program, as a docker archive: needs no registry, no builder, no downloads. */
async function makeImage(
  folder: string,
  name: string,
  program: string,
  source: string,
): Promise<string> {
  const root = path.join(folder, 'root');
  // Mount points that runc would otherwise have to make.
  for (const dir of ['dev', 'etc', 'proc', 'sys', path.dirname(program)]) {
    await mkdir(path.join(root, dir), { recursive: true });
  }
  await copyFile(source, path.join(root, program));
  await chmod(path.join(root, program), 0o755);
  await execa({ cwd: folder })`tar -C root --numeric-owner --owner=0 --group=0 -cf layer.tar .`;
  const digest = createHash('sha256')
    .update(await readFile(path.join(folder, 'layer.tar')))
    .digest('hex');
  const config = {
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: { Cmd: [`/${program}`], Env: ['PATH=/bin'], WorkingDir: '/' },
    rootfs: { type: 'layers', diff_ids: [`sha256:${digest}`] },
  };
  await writeFile(path.join(folder, 'config.json'), JSON.stringify(config));
  const manifest = [{ Config: 'config.json', RepoTags: [name], Layers: ['layer.tar'] }];
  await writeFile(path.join(folder, 'manifest.json'), JSON.stringify(manifest));
  await execa({ cwd: folder })`tar -cf image.tar manifest.json config.json layer.tar`;
  return path.join(folder, 'image.tar');
}
