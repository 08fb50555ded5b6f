import { describe, expect, it } from 'vitest';
import { findingsOf } from '../../sim/findings/all.ts';
import { extentOf, formatFindings } from '../../sim/findings/finding.ts';
import { BROKEN_HOSTS } from '../broken/all.ts';
import { brokenState } from '../broken/broken-host.ts';
import { ROUTED } from './hosts.ts';

const plain = (text: string): string => text;
const PLAIN = { bold: plain, dim: plain, green: plain, red: plain, yellow: plain };

describe('findings', () => {
  it('are none about the routed host', () => {
    expect(formatFindings(findingsOf(ROUTED), extentOf(ROUTED), PLAIN)).toEqual([
      '✓ nothing found in 5 netns, 11 links',
    ]);
  });

  it.each(BROKEN_HOSTS)('name the guilty, and nobody else, where $name', (broken) => {
    const { check, guilty, checkNames = guilty } = broken;
    const found = findingsOf(brokenState(broken));
    expect(found.map(({ severity, netns, object }) => [severity, netns, object])).toEqual(
      check === undefined ? [] : [[check, ...checkNames]],
    );
  });
});
