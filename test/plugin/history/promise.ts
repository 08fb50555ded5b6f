/** What an ADD has promised, told by the configuration and the result alone: CHECK cannot miss what the plugin has forgotten to want. */
import assert from 'node:assert/strict';
import { HOST_NETNS, type Host, findLink, getNetns } from '../../../model/host.ts';
import { familyOf } from '../../../model/ip.ts';
import { OWNER_MARK, isOurs } from '../../../model/link.ts';
import { type Table, tableKey } from '../../../model/nftables.ts';
import type { Attachment } from '../../../plugin/attachment.ts';
import type { CniResult } from '../../../plugin/cni/result.ts';
import type { RawConfig } from '../../arbitraries/configuration.ts';

function assertPod(host: Host, raw: RawConfig, attachment: Attachment, result: CniResult): void {
  const { netns, key, podMac } = attachment;
  const link = findLink(host, { netns, ifname: key.ifname });
  assert(link?.kind === 'veth', 'the pod has no link');
  assert.equal(link.up, raw['disableContainerInterface'] !== true, 'the pod’s link is up or down');
  assert.equal(link.mac, podMac);
  const mtuBytes = Number(raw['mtu'] ?? 0);
  if (mtuBytes !== 0) assert.equal(link.mtuBytes, mtuBytes, 'the pod has another MTU');
  const has = link.addresses.map(({ ip, prefixLength }) => `${ip}/${prefixLength}`);
  for (const { address } of result.ips) assert(has.includes(address), `the pod has not ${address}`);
  const { routes } = getNetns(host, netns);
  for (const { dst, gw } of result.routes)
    assert(
      routes.some(
        (r) => r.destination === dst && r.gateway === (gw ?? null) && r.device === key.ifname,
      ),
      `the pod has no route to ${dst}`,
    );
  if (raw['isDefaultGateway'] !== true) return;
  for (const { address } of result.ips) {
    const everywhere = address.includes(':') ? '::/0' : '0.0.0.0/0';
    assert(
      routes.some((r) => r.destination === everywhere && r.device === key.ifname),
      `the pod has no default route for ${address}`,
    );
  }
}

function assertHost(host: Host, raw: RawConfig, attachment: Attachment, result: CniResult): void {
  const { hostIfname, bridge, vlans } = attachment;
  const end = findLink(host, { netns: HOST_NETNS, ifname: hostIfname });
  assert(end?.up, 'the host’s end is not up');
  const { links, sysctls } = getNetns(host, HOST_NETNS);
  const isPtp = raw['mode'] === 'ptp';
  assert.equal(
    end.port?.master,
    isPtp ? undefined : bridge,
    'the host’s end is no port of the bridge',
  );
  if (!isPtp) assert(links[bridge]?.up, 'the bridge is not up');
  const isGateway = raw['isGateway'] === true || raw['isDefaultGateway'] === true;
  if (!isGateway && !isPtp) return;
  const carrier = links[isPtp ? hostIfname : (vlans?.gateway?.ifname ?? bridge)];
  if (carrier && isOurs(carrier) && result.ips.some(({ address }) => address.includes(':')))
    assert.equal(
      sysctls[`net/ipv6/conf/${carrier.ifname}/accept_ra`],
      '0',
      'a pod could advertise itself as a router',
    );
  for (const { gateway, address } of result.ips) {
    assert(
      carrier?.up && carrier.addresses.some(({ ip }) => ip === gateway),
      `the host has not ${gateway}, the gateway of ${address}`,
    );
    const forwards = address.includes(':') ? 'net/ipv6/conf/all/forwarding' : 'net/ipv4/ip_forward';
    assert.equal(sysctls[forwards], '1', 'the host does not forward');
  }
}

function assertLimits(host: Host, raw: RawConfig, { hostIfname, bandwidth }: Attachment): void {
  const { links } = getNetns(host, HOST_NETNS);
  const { root, ingress } = links[hostIfname]?.trafficControl ?? {};
  const isLimited = (name: 'ingressRate' | 'egressRate'): boolean => raw[name] !== undefined;
  assert.equal(root?.kind === 'tbf', isLimited('ingressRate'), 'what the pod is sent');
  assert.equal(ingress?.redirect, bandwidth?.ifb?.ifname, 'what the pod sends is not led away');
  const ifb = links[ingress?.redirect ?? ''];
  assert.equal(
    ifb?.up === true && ifb.trafficControl?.root?.kind === 'tbf',
    isLimited('egressRate'),
    'what the pod sends',
  );
}

function assertHas(table: Table | undefined, set: string, key: string): void {
  assert(Object.hasOwn(table?.sets[set]?.elements ?? {}, key), `${set} has not ${key}`);
}

function assertRules(host: Host, raw: RawConfig, { addresses, hostPorts }: Attachment): void {
  const { nftables } = getNetns(host, HOST_NETNS);
  const table = nftables[tableKey({ family: 'inet', table: OWNER_MARK })];
  for (const { ip } of addresses) {
    assertHas(table, `pods${familyOf(ip)}`, ip);
    if (raw['ipMasq'] === true) assertHas(table, `masq${familyOf(ip)}`, ip);
  }
  const { portMappings = [] } = (raw['runtimeConfig'] ?? {}) as {
    readonly portMappings?: readonly unknown[];
  };
  assert(
    portMappings.length === 0 || (hostPorts?.ports.length ?? 0) > 0,
    'no host port leads to it',
  );
}

/** Fails unless the host has what was asked for and answered. */
export function assertPromise(
  host: Host,
  raw: RawConfig,
  attachment: Attachment,
  result: CniResult,
): void {
  assertPod(host, raw, attachment, result);
  assertHost(host, raw, attachment, result);
  assertLimits(host, raw, attachment);
  assertRules(host, raw, attachment);
}
