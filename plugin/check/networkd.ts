/** What systemd-networkd is set to do with routes and policy rules that it did not make (networkd.conf(5)). */
import { HOST_NETNS, type Host } from '../../model/host.ts';
import { formatPolicyRule, policyRulesOf } from '../../model/policy-rule.ts';
import { PROTOCOL_BOOT, PROTOCOL_CUBE, PROTOCOL_KERNEL } from '../../model/route.ts';
import { type HostFinding, seen, seenRoute, shortened } from '../../sim/findings/finding.ts';

/** The settings by which it deletes what others made; both are on where nobody says otherwise. */
export interface ForeignSettings {
  readonly ManageForeignRoutes: boolean;
  readonly ManageForeignRoutingPolicyRules: boolean;
}

type Setting = keyof ForeignSettings;

const TRUE = /^(1|yes|y|true|t|on)$/i;
const FALSE = /^(0|no|n|false|f|off)$/i;

/** One file's say on a setting; undefined: none, or none that systemd could read. */
function saidIn(text: string, setting: Setting): boolean | undefined {
  let section = '';
  let said: boolean | undefined;
  for (const line of text.split('\n').map((each) => each.trim())) {
    if (line.startsWith('[')) section = line;
    const [key = '', value = ''] = line.split(/\s*=\s*/, 2);
    if (section !== '[Network]' || key !== setting) continue;
    if (TRUE.test(value)) said = true;
    if (FALSE.test(value)) said = false;
  }
  return said;
}

/** The settings after these files, of which the later has the last word. */
export function parseNetworkd(files: readonly string[]): ForeignSettings {
  const of = (setting: Setting): boolean =>
    files.map((text) => saidIn(text, setting)).findLast((said) => said !== undefined) ?? true;
  return {
    ManageForeignRoutes: of('ManageForeignRoutes'),
    ManageForeignRoutingPolicyRules: of('ManageForeignRoutingPolicyRules'),
  };
}

/** RTPROT_STATIC, which networkd gives what it makes (include/uapi/linux/rtnetlink.h). */
const PROTOCOL_STATIC = 4;

/** What it would delete: routes by hand and ours, and rules that neither the kernel nor itself made. */
function endangered(host: Host, setting: Setting): string[] {
  const netns = host.netns[HOST_NETNS];
  if (!netns) return [];
  if (setting === 'ManageForeignRoutes')
    return netns.routes
      .filter(({ protocol }) => protocol === PROTOCOL_BOOT || protocol === PROTOCOL_CUBE)
      .map((route) => seenRoute(HOST_NETNS, route));
  return policyRulesOf(netns)
    .filter(({ protocol }) => protocol !== PROTOCOL_KERNEL && protocol !== PROTOCOL_STATIC)
    .map((rule) => seen(HOST_NETNS, formatPolicyRule(rule)));
}

const FILE = '/etc/systemd/networkd.conf.d/keep-foreign.conf';

/** The settings that endanger something of this host. For where networkd runs. */
export function networkdFindings(host: Host, settings: ForeignSettings): HostFinding[] {
  const SETTINGS = ['ManageForeignRoutes', 'ManageForeignRoutingPolicyRules'] as const;
  return SETTINGS.flatMap((setting): HostFinding[] => {
    const lines = endangered(host, setting);
    if (!settings[setting] || lines.length === 0) return [];
    const what = setting === 'ManageForeignRoutes' ? 'routes' : 'policy rules';
    return [
      {
        severity: 'warning',
        kind: 'networkd',
        netns: HOST_NETNS,
        object: `networkd setting ${setting}`,
        text: `is yes: systemd-networkd deletes ${what} that it did not make when it starts or sets a link up`,
        evidence: shortened(lines),
        mend: [
          'mkdir -p /etc/systemd/networkd.conf.d',
          `printf '[Network]\\n${SETTINGS.map((each) => `${each}=no\\n`).join('')}' >${FILE}`,
          'systemctl restart systemd-networkd',
        ],
      },
    ];
  });
}
