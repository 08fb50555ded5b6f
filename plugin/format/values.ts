/** Schemas of the values that saved files hold: read strictly, into the model's own types. */
import * as z from 'zod/mini';
import { type Ifname, parseIfname } from '../../model/ifname.ts';
import { type Ip, parseIp } from '../../model/ip.ts';
import { type Mac, parseMac } from '../../model/mac.ts';
import { type Prefix, parsePrefix } from '../../model/prefix.ts';

/** Text that a parser takes as it stands: in a file, values are in their canonical form. */
function canonical<T extends string>(what: string, parse: (text: string) => T) {
  return z.custom<T>(
    (value) => {
      try {
        return typeof value === 'string' && parse(value) === value;
      } catch {
        return false;
      }
    },
    { error: `it is not ${what}` },
  );
}

export const ip = canonical<Ip>('an IP address in canonical form', parseIp);
export const prefix = canonical<Prefix>('a prefix in canonical form', parsePrefix);
export const mac = canonical<Mac>('a MAC address in lower case', parseMac);
export const ifname = canonical<Ifname>('a link name', parseIfname);
