-- Revisions of a pipeline's rules: what was asked for, by whom, and from which cut on it is in force.
CREATE TABLE rules (
    pipeline    TEXT NOT NULL,
    number      INTEGER NOT NULL,
    content     TEXT NOT NULL,
    hash        TEXT NOT NULL,
    author      TEXT NOT NULL,
    origin      TEXT NOT NULL,
    difference  TEXT NOT NULL,
    proposed_at TEXT NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('Proposed', 'InForce', 'Refused')),
    decided_at  TEXT,
    cut         TEXT,
    position    TEXT,
    reason      TEXT,
    PRIMARY KEY (pipeline, number)
) STRICT, WITHOUT ROWID;

-- What a pipeline's service began with: its file's rules, and the sections that can't be changed while it runs.
CREATE TABLE rules_notes (
    pipeline TEXT NOT NULL,
    name     TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (pipeline, name)
) STRICT, WITHOUT ROWID;
