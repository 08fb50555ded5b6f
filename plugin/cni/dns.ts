/** What a result says about name resolution (CNI specification, section 5, "Success", `dns`). */
export interface Dns {
  readonly nameservers?: readonly string[] | undefined;
  readonly domain?: string | undefined;
  readonly search?: readonly string[] | undefined;
  readonly options?: readonly string[] | undefined;
}

/** Does it say anything? */
export function isEmptyDns(dns: Dns): boolean {
  return (
    (dns.nameservers ?? []).length === 0 &&
    (dns.domain ?? '') === '' &&
    (dns.search ?? []).length === 0 &&
    (dns.options ?? []).length === 0
  );
}

/**
 * Reads a resolv.conf(5) as the reference's host-local does: the last `domain`, all of `nameserver`, `search` and
 * `options`; lines that begin with `#` or `;` are comments.
 */
export function parseResolvConf(text: string): Dns {
  const nameservers: string[] = [];
  const search: string[] = [];
  const options: string[] = [];
  let domain = '';
  for (const line of text.split('\n')) {
    const [keyword, ...values] = line.trim().split(/\s+/);
    if (keyword === 'nameserver') nameservers.push(...values.slice(0, 1));
    else if (keyword === 'domain') domain = values[0] ?? domain;
    else if (keyword === 'search') search.push(...values);
    else if (keyword === 'options') options.push(...values);
  }
  return {
    ...(nameservers.length > 0 ? { nameservers } : {}),
    ...(domain === '' ? {} : { domain }),
    ...(search.length > 0 ? { search } : {}),
    ...(options.length > 0 ? { options } : {}),
  };
}
