/** The colours of what the command line says. */
import { fstatSync, statSync } from 'node:fs';

/** Marks of a text, by what they do to it in a terminal. */
export type Colors = Readonly<
  Record<'bold' | 'dim' | 'green' | 'red' | 'yellow', (text: string) => string>
>;

const plain = (text: string): string => text;
const NONE: Colors = { bold: plain, dim: plain, green: plain, red: plain, yellow: plain };

/** Is it of the kind that terminals are? A pipe or a file is not, and closed it is nothing; /dev/null is, but no terminal. */
function mayBeTerminal(fd: number): boolean {
  try {
    const status = fstatSync(fd);
    return status.isCharacterDevice() && status.rdev !== statSync('/dev/null').rdev;
  } catch {
    return false;
  }
}

/** Is the file descriptor a terminal's? */
export async function isTerminal(fd: number): Promise<boolean> {
  if (!mayBeTerminal(fd)) return false;
  // Three milliseconds, for those who see the answer.
  const { isatty } = await import('node:tty');
  return isatty(fd);
}

/** Colours, or none. Those who know the codes look at `process.stdout` first, which takes eight milliseconds to make. */
export async function colorsFor(isWanted: boolean): Promise<Colors> {
  if (!isWanted) return NONE;
  const { default: picocolors } = await import('picocolors');
  return picocolors.createColors(true);
}
