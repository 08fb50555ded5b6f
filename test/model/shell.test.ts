import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { describeOp } from '../../model/ops.ts';

/** What the command gets, one word a line, when a shell reads the line. */
function wordsOf(line: string): string[] {
  const script = `sysctl() { printf '%s\\0' "$@"; }\n${line}\n`;
  return execFileSync('sh', ['-c', script], { cwd: '/' }).toString().split('\0').slice(0, -1);
}

describe('a setting as a shell reads it', () => {
  it.each([
    ['net/core/somaxconn', '512', 'sysctl -w net/core/somaxconn="512"'],
    ['net/ipv4/tcp_rmem', '1\t2\t3', 'sysctl -w net/ipv4/tcp_rmem="1\t2\t3"'],
    ['net/a', '$(id)', "sysctl -w 'net/a=$(id)'"],
    ['net/x;id', "it's", "sysctl -w 'net/x;id=it'\\''s'"],
  ])('%s = %s', (key, value, line) => {
    expect(describeOp({ op: 'sysctl.set', netns: 'one', key, value })).toEqual([line]);
  });

  it('is one word, with nothing in it for the shell', () => {
    const text = fc.stringMatching(/^[ab1 \t\n;&|<>$`"'\\(){}*?[\]!#~=%]*$/);
    fc.assert(
      fc.property(text, text, (name, value) => {
        const key = `net/${name}`;
        const [line = ''] = describeOp({ op: 'sysctl.set', netns: 'one', key, value });
        expect(wordsOf(line)).toEqual(['-w', `${key}=${value}`]);
      }),
      { numRuns: 200 },
    );
  });
});
