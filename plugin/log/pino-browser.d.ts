/** pino's build for browsers has the types of pino. */
declare module 'pino/browser.js' {
  import { pino } from 'pino';
  export default pino;
}
