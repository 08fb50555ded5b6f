/** What a chain of plugins answered, read from any version of the specification (section 5, "Success", and its older forms). */
import { type Ip, findIp } from '../../model/ip.ts';
import { type Mac, findMac } from '../../model/mac.ts';
import { type Prefix, type PrefixedIp, findPrefixedIp, parsePrefix } from '../../model/prefix.ts';
import { type JsonObject, findObject, objectsOf, textOf } from './json.ts';

/** A link that the result names. */
export interface ReferenceInterface {
  readonly name: string;
  readonly mac: Mac | undefined;
  /** The pod's netns; '' for a link of the host. */
  readonly sandbox: string;
}

/** An address that the result names. */
export interface ReferenceAddress extends PrefixedIp {
  readonly gateway: Ip | undefined;
  /** Index into the interfaces, undefined when the result does not say. */
  readonly interface: number | undefined;
}

/** A route that the result names. */
export interface ReferenceRoute {
  readonly destination: Prefix;
  readonly gateway: Ip | undefined;
}

/** A result, as far as it can be understood. */
export interface ReferenceResult {
  readonly interfaces: readonly ReferenceInterface[];
  readonly addresses: readonly ReferenceAddress[];
  readonly routes: readonly ReferenceRoute[];
}

function readInterface({ name, mac, sandbox }: JsonObject): ReferenceInterface {
  return { name: textOf(name), mac: findMac(textOf(mac)), sandbox: textOf(sandbox) };
}

function readAddress(address: unknown, gateway: unknown, at: unknown): ReferenceAddress[] {
  const prefixed = findPrefixedIp(textOf(address));
  if (!prefixed) return [];
  return [
    {
      ...prefixed,
      gateway: findIp(textOf(gateway)),
      interface: typeof at === 'number' ? at : undefined,
    },
  ];
}

function readRoute({ dst, gw }: JsonObject): ReferenceRoute[] {
  try {
    return [{ destination: parsePrefix(textOf(dst)), gateway: findIp(textOf(gw)) }];
  } catch {
    return [];
  }
}

/** Reads a result; what is not there or not understood is left out. Before 0.3.0 there was one block per family, and no links. */
export function readResult(raw: unknown): ReferenceResult {
  const result = findObject(raw) ?? {};
  const blocks = objectsOf([result['ip4'], result['ip6']]);
  return {
    interfaces: objectsOf(result['interfaces']).map(readInterface),
    addresses: [
      ...objectsOf(result['ips']).flatMap((each) =>
        readAddress(each['address'], each['gateway'], each['interface']),
      ),
      ...blocks.flatMap((block) => readAddress(block['ip'], block['gateway'], undefined)),
    ],
    routes: [result, ...blocks].flatMap((part) => objectsOf(part['routes']).flatMap(readRoute)),
  };
}

/** The addresses of the pod's link with a name: those of other links are not its own. */
export function addressesOf(
  { interfaces, addresses }: ReferenceResult,
  ifname: string,
): ReferenceAddress[] {
  return addresses.filter(({ interface: at }) => {
    const link = at === undefined ? undefined : interfaces[at];
    return link === undefined || (link.name === ifname && link.sandbox !== '');
  });
}
