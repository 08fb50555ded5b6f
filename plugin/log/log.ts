import type { Log, LogLevel } from '../call/context.ts';
import { appendRotating } from './rotating-file.ts';

/** Where and how the log is written. */
export interface LogSettings {
  readonly logFile: string;
  readonly logLevel: LogLevel | 'silent';
  readonly logFormat: 'json' | 'text';
  /** The file is rotated before it grows beyond this. */
  readonly logMaxBytes: number;
}

/** A log that is kept in memory until `flush`: a call is answered first. */
export interface CallLog {
  readonly log: Log;
  /** Writes what was logged. Never throws: a call does not fail because of its log. */
  readonly flush: (settings: LogSettings) => Promise<void>;
}

interface Entry {
  readonly timeMs: number;
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

const SEVERITY: Readonly<Record<LogLevel | 'silent', number>> = {
  debug: 20,
  info: 30,
  warn: 40,
  error: 50,
  silent: 100,
};

/** The time as text: date, time of day, milliseconds, UTC. */
function formatTime(timeMs: number): string {
  return new Date(timeMs).toISOString();
}

/** `2026-01-01T00:00:00.000Z [INFO] Allocated IP 10.244.1.5/24 network=podnet` */
function formatEntry({ timeMs, level, message, fields }: Entry): string {
  const words = Object.entries(fields).map(
    ([key, value]) =>
      ` ${key}=${typeof value === 'string' && !/[\s"=]/.test(value) ? value : JSON.stringify(value)}`,
  );
  return `${formatTime(timeMs)} [${level.toUpperCase()}] ${message.replaceAll(/\s*\n\s*/g, ' ')}${words.join('')}\n`;
}

async function formatJson(
  entries: readonly Entry[],
  common: Readonly<Record<string, unknown>>,
): Promise<string> {
  // Only here, and the build without streams and worker threads: a tenth of the other's start-up.
  const { default: pino } = await import('pino/browser.js');
  let text = '';
  const logger = pino({
    level: 'debug',
    timestamp: false,
    browser: {
      asObject: true,
      formatters: { level: (label) => ({ level: label }) },
      write: (line) => {
        text += `${JSON.stringify(line)}\n`;
      },
    },
  });
  for (const { timeMs, level, message, fields } of entries) {
    logger[level]({ time: formatTime(timeMs), ...common, ...fields }, message);
  }
  return text;
}

/** A log for one call; `common` stands in every line. */
export function makeLog(common: Readonly<Record<string, unknown>>): CallLog {
  const entries: Entry[] = [];
  return {
    log: (level, message, fields = {}) => {
      entries.push({ timeMs: Date.now(), level, message, fields });
    },
    flush: async ({ logFile, logLevel, logFormat, logMaxBytes }) => {
      try {
        const wanted = entries.filter(({ level }) => SEVERITY[level] >= SEVERITY[logLevel]);
        if (wanted.length === 0) return;
        const text =
          logFormat === 'text'
            ? wanted
                .map((entry) => formatEntry({ ...entry, fields: { ...common, ...entry.fields } }))
                .join('')
            : await formatJson(wanted, common);
        appendRotating(logFile, text, logMaxBytes);
      } catch {
        // Nobody to tell: standard output is the answer's, and the runtime drops standard error.
      }
    },
  };
}
