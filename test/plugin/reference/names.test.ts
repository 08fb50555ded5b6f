import { expect, test } from 'vitest';
import type { Ifname } from '../../../model/ifname.ts';
import { referenceNames } from '../../../plugin/reference/names.ts';

test('the names of the things of an attachment', () => {
  expect(
    referenceNames({ network: 'test', containerId: '1234', ifname: 'eth0' as Ifname }),
  ).toEqual({
    masquerade: 'CNI-2bbe0c48b91a7d1b8a6753a8',
    portMapping: 'CNI-DN-2bbe0c48b91a7d1b8a675',
    oldPortMapping: 'CNI-SN-2bbe0c48b91a7d1b8a675',
    shaper: 'bwp2bbe0c48b91a',
    masqueradeComment: 'ee26b0dd4af7e749-43243da06b17813b',
    portMappingComment: '1234',
    spoofCheckComment: 'macspoofchk-1234-eth0',
    spoofCheckChains: ['cni-br-iface-1234-eth0', 'cni-br-iface-1234-eth0-mac'],
  });
});
