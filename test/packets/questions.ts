/** What the netns of the routed host ask each other. */
import { parseIp } from '../../model/ip.ts';
import type { ProbeRequest } from '../../sim/probe.ts';
import { ROUTED_DESTINATIONS, ROUTED_SENDERS } from '../sim/hosts.ts';
import { LISTEN_PORT, SERVICES, SERVICE_PORT } from '../sim/rulesets.ts';
import { DEFAULT_PAYLOAD_BYTES, type Question } from './stations.ts';

/** Everything that every netns can ask, and what arrives of it if nothing is in its way. */
export const QUESTIONS: readonly Question[] = ROUTED_SENDERS.flatMap((netns) => [
  ...ROUTED_DESTINATIONS.flatMap((destination): Question[] => [
    { netns, protocol: 'icmp', destination, port: 0 },
    { netns, protocol: 'udp', destination, port: LISTEN_PORT },
    { netns, protocol: 'tcp', destination, port: LISTEN_PORT },
  ]),
  ...SERVICES.flatMap((destination): Question[] => [
    { netns, protocol: 'udp', destination, port: SERVICE_PORT },
    { netns, protocol: 'tcp', destination, port: SERVICE_PORT },
  ]),
]);

/** From everybody to everywhere once: of neighbours and ports nothing is learned from a second protocol. */
export const WARMING: readonly Question[] = QUESTIONS.filter(
  ({ protocol, port }) => protocol === 'icmp' || (protocol === 'udp' && port === SERVICE_PORT),
);

/** Longer than what a link of 1,400 bytes takes, and as long as one of 1,500 takes, with the headers of IPv4. */
const SIZES = [1_400, 1_472];
/** Used up by the first router, and by a second. */
const TTLS = [1, 2];

/** What is too large for a link on the way, or does not live as long: datagrams and echoes, the large ones with DF and without. */
export const DYING: readonly Question[] = ROUTED_SENDERS.flatMap((netns) =>
  [...ROUTED_DESTINATIONS, ...SERVICES].flatMap((destination) => {
    const port = SERVICES.includes(destination) ? SERVICE_PORT : LISTEN_PORT;
    return [
      { netns, protocol: 'udp', destination, port } as const,
      { netns, protocol: 'icmp', destination, port: 0 } as const,
    ].flatMap((question): Question[] => [
      ...SIZES.flatMap((payloadBytes) =>
        [true, false].map((dontFragment) => ({ ...question, payloadBytes, dontFragment })),
      ),
      ...TTLS.map((ttl) => ({ ...question, ttl })),
    ]);
  }),
);

/** The same question to the simulator. */
export function requestOf(question: Question): ProbeRequest {
  const { netns, protocol, destination, port, ttl, dontFragment } = question;
  const { payloadBytes = DEFAULT_PAYLOAD_BYTES } = question;
  return {
    netns,
    destination: parseIp(destination),
    ...(protocol === 'icmp' ? {} : { to: { protocol, port } }),
    ...(ttl === undefined ? {} : { ttl }),
    ...(protocol === 'tcp' ? {} : { payloadBytes }),
    ...(dontFragment === undefined ? {} : { dontFragment }),
  };
}

/** A question in words. */
export function formatQuestion({ netns, protocol, destination, ...more }: Question): string {
  const { port, ttl, payloadBytes, dontFragment } = more;
  const words = [
    `${netns} to ${destination} ${port}/${protocol}`,
    ...(ttl === undefined ? [] : [`ttl ${ttl}`]),
    ...(payloadBytes === undefined ? [] : [`${payloadBytes} bytes`]),
    ...(dontFragment === false ? ['without DF'] : []),
  ];
  return words.join(', ');
}
