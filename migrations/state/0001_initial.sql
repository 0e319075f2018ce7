-- The state store: what the stream and the lake know as well, kept for speed, and the audit of runs.

-- The last epoch that a producer of a stream took.
CREATE TABLE epochs (
    stream_id TEXT PRIMARY KEY,
    epoch     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Where each table is: a cache of the checkpoints in the lake's commits.
CREATE TABLE positions (
    table_name         TEXT PRIMARY KEY,
    position           TEXT NOT NULL,
    source_commit_time TEXT NOT NULL,
    instant            TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The audit: one row for each table of each run of a service or a backfill.
CREATE TABLE runs (
    run_id        TEXT NOT NULL,
    pipeline      TEXT NOT NULL,
    table_name    TEXT NOT NULL,
    command       TEXT NOT NULL,
    started_at    TEXT NOT NULL,
    ended_at      TEXT,
    status        TEXT NOT NULL CHECK (status IN ('Running', 'Complete', 'Failed')),
    rows_inserted INTEGER NOT NULL DEFAULT 0,
    rows_updated  INTEGER NOT NULL DEFAULT 0,
    rows_deleted  INTEGER NOT NULL DEFAULT 0,
    commits       INTEGER NOT NULL DEFAULT 0,
    position      TEXT,
    error         TEXT,
    PRIMARY KEY (run_id, table_name)
) STRICT, WITHOUT ROWID;

CREATE INDEX runs_by_start ON runs (started_at);
