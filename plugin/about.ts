import { SUPPORTED_VERSIONS } from './cni/version.ts';

declare const CUBE_CNI_VERSION: string;

/** The version of the executable; `dev` when it runs from source. */
export const VERSION = typeof CUBE_CNI_VERSION === 'undefined' ? 'dev' : CUBE_CNI_VERSION;

/**
 * What a call without CNI_COMMAND and arguments prints on standard error, in the reference's form, which other programs
 * parse. `name` is the one that the executable was called by: under a reference plugin's it answers as that one.
 */
export function aboutText(name: string): string {
  return `CNI ${name} plugin v${VERSION}
CNI protocol versions supported: ${SUPPORTED_VERSIONS.join(', ')}
`;
}
