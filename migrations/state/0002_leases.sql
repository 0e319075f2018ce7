-- Who works on what, in the layout of the Kinesis Client Library's lease table.
CREATE TABLE leases (
    leaseKey                      TEXT PRIMARY KEY,
    leaseOwner                    TEXT,
    leaseCounter                  INTEGER NOT NULL,
    ownerSwitchesSinceCheckpoint  INTEGER NOT NULL DEFAULT 0,
    checkpoint                    TEXT NOT NULL,
    -- what the lake's last commit needs of the stream; not one of the library's
    committedCheckpoint           TEXT,
    -- who finishes before the new owner may begin
    checkpointOwner               TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX runs_by_pipeline ON runs (pipeline, started_at);
