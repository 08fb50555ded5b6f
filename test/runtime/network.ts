import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { recordsOf } from '../linux/executable/node.ts';
import { logTail } from './log-tail.ts';
import type { RuntimeNode } from './runtime-node.ts';

const EXECUTABLE = path.join(import.meta.dirname, '../../dist/cube-cni');

/** One call of the plugin, as the runtime made it. */
export interface PluginCall {
  readonly command: string;
  readonly containerId: string;
  readonly netns: string;
}

/** What a runtime is given to find the network by, and what the tests know of it. */
export interface Network {
  readonly name: string;
  readonly bridge: string;
  /** The gateways' addresses, one of each family. */
  readonly gateways: readonly [string, string];
  /** The folder of the plugin, under its own name and as the `loopback` that containerd calls. */
  readonly pluginFolder: string;
  /** The folder of the network configuration list. */
  readonly configFolder: string;
  /** The calls of the plugin so far, in order. */
  calls(): Promise<readonly PluginCall[]>;
  /** All that the plugin has stored about attachments. */
  records(): ReturnType<typeof recordsOf>;
  /** The end of the plugin's log, for a test that failed. */
  log(): Promise<string>;
}

/** Writes a network configuration list with the built plugin alone, for a runtime that may ask for these capabilities. */
export async function writeNetwork(
  node: RuntimeNode,
  capabilities: readonly string[],
): Promise<Network> {
  const name = 'podnet';
  const bridge = 'cni0';
  const type = 'cube-cni';
  const [pluginFolder, configFolder] = [
    path.join(node.folder, 'bin'),
    path.join(node.folder, 'net.d'),
  ];
  const callsFile = path.join(node.folder, 'calls');
  const dataDir = path.join(node.folder, 'data');
  const logFile = path.join(node.folder, 'plugin.log');

  await mkdir(pluginFolder);
  await symlink(EXECUTABLE, path.join(pluginFolder, 'loopback'));
  // Writes down each call before it starts.
  const record = `printf '%s %s %s\\n' "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_NETNS" >>'${callsFile}'`;
  await writeFile(path.join(pluginFolder, type), `#!/bin/sh\n${record}\nexec '${EXECUTABLE}'\n`);
  await chmod(path.join(pluginFolder, type), 0o755);

  await mkdir(configFolder);
  const conflist = {
    cniVersion: '1.0.0',
    name,
    plugins: [
      {
        type,
        capabilities: Object.fromEntries(capabilities.map((capability) => [capability, true])),
        bridge,
        isDefaultGateway: true,
        ipMasq: true,
        hairpinMode: true,
        dataDir,
        logFile,
        ipam: {
          type: 'cube-ipam',
          ranges: [[{ subnet: '10.88.0.0/24' }], [{ subnet: 'fd88::/64' }]],
        },
      },
    ],
  };
  await writeFile(path.join(configFolder, '10-test.conflist'), JSON.stringify(conflist));

  return {
    name,
    bridge,
    gateways: ['10.88.0.1', 'fd88::1'],
    pluginFolder,
    configFolder,
    async calls() {
      const text = existsSync(callsFile) ? await readFile(callsFile, 'utf8') : '';
      return text
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => {
          const [command = '', containerId = '', netns = ''] = line.split(' ');
          return { command, containerId, netns };
        });
    },
    records: () => recordsOf(dataDir),
    log: () => logTail(logFile),
  };
}
