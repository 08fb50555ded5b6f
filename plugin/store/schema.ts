/**
 * The schema of the state file. It only grows: a migration adds tables, columns with defaults or
 * indexes, so that during a rollout an older executable goes on working on a newer file. Where that
 * cannot be, `OLDEST_COMPATIBLE` is raised, and older executables refuse the file by name.
 */
export const SCHEMA_VERSION = 2;

/** The oldest schema whose executables may write to a file of this one. */
export const OLDEST_COMPATIBLE = 1;

/** What brings a file from the version before to this one; the first makes a new file. */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE attachment (
    network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
    state TEXT NOT NULL, pid INTEGER NOT NULL, start_time TEXT NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (network, container_id, ifname)) WITHOUT ROWID;
  CREATE TABLE address (
    network TEXT NOT NULL, sort_key TEXT NOT NULL, ip TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
    PRIMARY KEY (network, sort_key)) WITHOUT ROWID;
  CREATE INDEX address_owner ON address (network, container_id, ifname);
  CREATE TABLE last_address (network TEXT NOT NULL, range_set INTEGER NOT NULL, ip TEXT NOT NULL, PRIMARY KEY (network, range_set)) WITHOUT ROWID;
  CREATE TABLE usage (
    object TEXT NOT NULL, network TEXT NOT NULL, container_id TEXT NOT NULL, ifname TEXT NOT NULL,
    PRIMARY KEY (object, network, container_id, ifname)) WITHOUT ROWID;
  CREATE INDEX usage_owner ON usage (network, container_id, ifname);
  CREATE TABLE config (digest TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE claim (object TEXT PRIMARY KEY) WITHOUT ROWID;
  `,
  // Addresses that were given back, and when (ms since 1970).
  `
  CREATE TABLE released (
    network TEXT NOT NULL, sort_key TEXT NOT NULL, ip TEXT NOT NULL, released_at INTEGER NOT NULL,
    PRIMARY KEY (network, sort_key)) WITHOUT ROWID;
  CREATE INDEX released_at ON released (released_at);
  `,
];
