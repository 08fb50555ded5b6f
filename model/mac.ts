declare const macBrand: unique symbol;

/** An Ethernet address in canonical text: six lower-case bytes, `02:fc:00:00:00:01`. */
export type Mac = string & { readonly [macBrand]: true };

const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

export const ZERO_MAC = '00:00:00:00:00:00' as Mac;

/** Reads a MAC address in colon form, or undefined. */
export function findMac(text: string): Mac | undefined {
  return MAC.test(text) ? (text.toLowerCase() as Mac) : undefined;
}

/** Like `findMac`, but throws an error that names the text. */
export function parseMac(text: string): Mac {
  const mac = findMac(text);
  if (mac === undefined) throw new Error(`"${text}" is not a MAC address`);
  return mac;
}

export function macBytes(mac: Mac): Uint8Array {
  return Uint8Array.from(mac.split(':'), (byte) => Number.parseInt(byte, 16));
}

export function macFromBytes(bytes: Uint8Array): Mac {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':') as Mac;
}

/** Can a link own it? Not multicast, not zero (include/linux/etherdevice.h, is_valid_ether_addr). */
export function isUnicastMac(mac: Mac): boolean {
  return mac !== ZERO_MAC && (Number.parseInt(mac.slice(0, 2), 16) & 1) === 0;
}

/** Makes a locally administered unicast address of six arbitrary bytes (IEEE 802, U/L bit). */
export function localMac(bytes: Uint8Array): Mac {
  const own = bytes.slice(0, 6);
  own[0] = ((own[0] ?? 0) & 0xfc) | 0x02;
  return macFromBytes(own);
}
