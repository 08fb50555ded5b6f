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

// Loops instead of Array.from and padStart: the first use of each built-in costs 50 µs in a process that lives for 10 ms.
export function macBytes(mac: Mac): Uint8Array {
  const bytes = new Uint8Array(6);
  for (let i = 0; i < 6; i += 1) bytes[i] = Number.parseInt(mac.slice(3 * i, 3 * i + 2), 16);
  return bytes;
}

export function macFromBytes(bytes: Uint8Array): Mac {
  let text = '';
  for (let i = 0; i < bytes.length; i += 1) {
    const byte = bytes[i] ?? 0;
    text += `${i === 0 ? '' : ':'}${byte < 16 ? '0' : ''}${byte.toString(16)}`;
  }
  return text as Mac;
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
