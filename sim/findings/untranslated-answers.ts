/** Services whose answers a bridge hands to their asker as they are, because IP does not look at what it forwards. */
import { type NetnsName, findNetns, getLink } from '../../model/host.ts';
import { type Family, type Ip } from '../../model/ip.ts';
import { type Journey, travel } from '../journey.ts';
import type { LegacyTables } from '../legacy-table.ts';
import { looksAtBridged } from '../netfilter.ts';
import type { ProbeRequest } from '../probe.ts';
import { publishedPorts } from '../published.ts';
import { makeWorld } from '../world.ts';
import { type HostFinding, seen, shortened } from './finding.ts';
import { type Look, type PodLink, globalAddresses, hasAddress } from './look.ts';

/** So many services of a netns are asked for: the setting is one for all of them. */
const MOST_SERVICES = 8;

type To = NonNullable<ProbeRequest['to']>;

interface Service {
  readonly ip: Ip;
  readonly to: To;
}

/** Those at addresses that the node itself has not. */
function servicesOf({ host }: Look, node: NetnsName, family: Family): Service[] {
  const netns = findNetns(host, node);
  if (!netns || looksAtBridged(netns, family)) return [];
  return publishedPorts(netns)
    .flatMap(({ ip, port, protocol, ...each }): Service[] =>
      each.family !== family ||
      ip === null ||
      hasAddress(host, node, ip) ||
      (protocol !== 'tcp' && protocol !== 'udp')
        ? []
        : [{ ip, to: { protocol, port } }],
    )
    .slice(0, MOST_SERVICES);
}

/** Two pods of each bridge of a node: a service may be one of them. */
function askersOf({ host, pods }: Look, node: NetnsName, family: Family): PodLink[] {
  const up = pods.filter(
    (pod) =>
      pod.node === node &&
      pod.link.up &&
      getLink(host, pod.hostEnd).port !== null &&
      globalAddresses(pod, family).length > 0,
  );
  const segments = [...new Set(up.map(({ segment }) => segment))];
  return segments.flatMap((segment) => up.filter((pod) => pod.segment === segment).slice(0, 2));
}

function evidenceOf(asker: PodLink, { ip, to }: Service, { verdict }: Journey): string {
  const text = verdict.kind === 'dropped' ? verdict.text : '';
  return seen(asker.netns, `asks ${ip} for ${to.port}/${to.protocol}: ${text}`);
}

/** The settings by which pods would have their answers from services that are pods of their own bridge. */
export function untranslatedAnswers(look: Look, legacyTables: LegacyTables = {}): HostFinding[] {
  const world = makeWorld(look.host, legacyTables);
  const nodes = [...new Set(look.pods.map(({ node }) => node))];
  return nodes.flatMap((node) =>
    ([4, 6] as const).flatMap((family): HostFinding[] => {
      const services = servicesOf(look, node, family);
      const lost = askersOf(look, node, family).flatMap((asker) =>
        services.flatMap((service) => {
          const request = { netns: asker.netns, destination: service.ip, to: service.to };
          const journey = travel(world, request);
          const { cause } = journey;
          return cause?.object.startsWith('sysctl net.bridge.')
            ? [{ cause, line: evidenceOf(asker, service, journey) }]
            : [];
        }),
      );
      const [first] = lost;
      if (!first) return [];
      const { netns, object, text, mend } = first.cause;
      const evidence = shortened(lost.map(({ line }) => line));
      // Whether anybody asks so is not known.
      return [
        { severity: 'warning', kind: 'untranslated-answer', netns, object, text, mend, evidence },
      ];
    }),
  );
}
