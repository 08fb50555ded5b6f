import { expect, test } from 'vitest';
import { CONFIG_KEYS } from '../../plugin/cni/keys.ts';
import { CONFIG_FORM } from '../../plugin/process/known-config.ts';

// A state file outlives executables: what an older one has read of a configuration lacks what it did not know.
test('a form of configurations has these keys; others need another form', () => {
  expect({ form: CONFIG_FORM, keys: Object.keys(CONFIG_KEYS).toSorted() }).toMatchInlineSnapshot(`
    {
      "form": 3,
      "keys": [
        "allmulti",
        "args",
        "bridge",
        "capabilities",
        "cni.dev/attachments",
        "cni.dev/valid-attachments",
        "cniVersion",
        "conditionsV4",
        "conditionsV6",
        "dataDir",
        "disableContainerInterface",
        "dns",
        "egressBurst",
        "egressRate",
        "enabledad",
        "externalSetMarkChain",
        "forceAddress",
        "hairpinMode",
        "ingressBurst",
        "ingressPolicy",
        "ingressRate",
        "ipMasq",
        "ipMasqBackend",
        "ipam",
        "ipspoofchk",
        "isDefaultGateway",
        "isGateway",
        "logFile",
        "logFormat",
        "logLevel",
        "logMaxBytes",
        "macspoofchk",
        "markMasqBit",
        "masqAll",
        "mode",
        "mtu",
        "name",
        "podVerdict",
        "portIsolation",
        "preserveDefaultVlan",
        "prevResult",
        "promisc",
        "promiscMode",
        "runtimeConfig",
        "snat",
        "sysctl",
        "txQLen",
        "type",
        "vlan",
        "vlanTrunk",
      ],
    }
  `);
});
