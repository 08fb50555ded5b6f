/**
 * The names that the reference plugins give what they make outside of links. Most are cut from a digest of network and container, so that links of one container in one network share
 * them (containernetworking/plugins, pkg/utils/utils.go; plugins/meta/bandwidth/main.go; pkg/ip/ipmasq_nftables_linux.go).
 */
import { parseIfname, type Ifname } from '../../model/ifname.ts';
import type { AttachmentKey } from '../cni/request.ts';

/** What the reference chain calls the things of one attachment. */
export interface ReferenceNames {
  /** bridge and ptp: the chain with the masquerade rules, in the table nat. */
  readonly masquerade: string;
  /** portmap: the chain with the DNAT rules, in the table nat. */
  readonly portMapping: string;
  /** portmap before 0.8: the chain with the SNAT rules. */
  readonly oldPortMapping: string;
  /** bandwidth: the ifb link that shapes what the pod sends. */
  readonly shaper: Ifname;
  /** bridge with `ipMasqBackend` nftables: how the comments of its rules begin. */
  readonly masqueradeComment: string;
  /** portmap with `backend` nftables: the comment of its rules. */
  readonly portMappingComment: string;
  /** bridge with `macspoofchk`: the comment of its rules (pkg/link/spoofcheck.go). */
  readonly spoofCheckComment: string;
  /** bridge with `macspoofchk`: its chains, the one that jumps first. */
  readonly spoofCheckChains: readonly string[];
}

/** XT_EXTENSION_MAXNAMELEN less one (include/uapi/linux/netfilter/x_tables.h). */
const CHAIN_NAME_LENGTH = 28;
const IFNAME_LENGTH = 15;
const COMMENT_HASH_LENGTH = 16;

function sha512(text: string): string {
  return new Bun.CryptoHasher('sha512').update(text).digest('hex');
}

/** The names of an attachment's things. */
export function referenceNames({ network, containerId, ifname }: AttachmentKey): ReferenceNames {
  const hash = sha512(network + containerId);
  const chain = (prefix: string): string => `${prefix}${hash}`.slice(0, CHAIN_NAME_LENGTH);
  const comment = (text: string): string => sha512(text).slice(0, COMMENT_HASH_LENGTH);
  const spoofCheck = `cni-br-iface-${containerId}-${ifname}`;
  return {
    masquerade: chain('CNI-'),
    portMapping: chain('CNI-DN-'),
    oldPortMapping: chain('CNI-SN-'),
    shaper: parseIfname(`bwp${hash}`.slice(0, IFNAME_LENGTH)),
    masqueradeComment: `${comment(network)}-${comment(`${ifname}:${containerId}`)}`,
    portMappingComment: containerId,
    spoofCheckComment: `macspoofchk-${containerId}-${ifname}`,
    spoofCheckChains: [spoofCheck, `${spoofCheck}-mac`],
  };
}
