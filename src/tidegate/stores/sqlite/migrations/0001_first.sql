-- The first shape of the ledger. Times are Unix seconds, flags are 0 or 1.

CREATE TABLE file (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL,
    batch_id TEXT,
    growing INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX file_by_age ON file (tenant, created_at, id);

-- The slices of a file in their order: `seq` counts from 0.
CREATE TABLE part (
    file_id TEXT NOT NULL REFERENCES file (id),
    seq INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    blob TEXT NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (file_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE upload (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    blob TEXT NOT NULL,
    created_at REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'finished', 'abandoned')),
    file_id TEXT REFERENCES file (id),
    CHECK ((state = 'finished') = (file_id IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- The columns up to `request_digest` are the fields of a batch; rows.py reads them in this order.
CREATE TABLE batch (
    id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    input_file_id TEXT NOT NULL,
    completion_window TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    version INTEGER NOT NULL,
    metadata TEXT,
    output_expires_seconds INTEGER,
    in_progress_at REAL,
    finalizing_at REAL,
    completed_at REAL,
    failed_at REAL,
    expired_at REAL,
    cancelling_at REAL,
    cancelled_at REAL,
    total INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    expired INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    problems TEXT NOT NULL,
    models TEXT NOT NULL,
    plan_blob TEXT,
    output_file_id TEXT,
    error_file_id TEXT,
    output_bytes INTEGER NOT NULL,
    error_bytes INTEGER NOT NULL,
    waiting_for TEXT,
    idempotency_key TEXT,
    request_digest TEXT,
    -- Whether the batch holds its input file, however long users see that.
    holds_input INTEGER NOT NULL,
    -- Shards that have not ended.
    open_shards INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX batch_by_age ON batch (tenant, created_at, id);
CREATE UNIQUE INDEX batch_by_key ON batch (tenant, idempotency_key)
WHERE idempotency_key IS NOT NULL;

-- What can be claimed: the planning of a batch, each of its shards, its finalizing.
-- A free unit has no owner and `expires_at` 0. `created_at` is the batch's.
CREATE TABLE unit (
    batch_id TEXT NOT NULL REFERENCES batch (id),
    kind TEXT NOT NULL CHECK (kind IN ('planning', 'shard', 'finalizing')),
    number INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    created_at REAL NOT NULL,
    model TEXT NOT NULL DEFAULT '',
    undone INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    epoch INTEGER NOT NULL DEFAULT 0,
    expires_at REAL NOT NULL DEFAULT 0,
    not_before REAL,
    ended INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch_id, kind, number)
) STRICT, WITHOUT ROWID;

-- Holds all that offers and claims of shards ask for, so that neither reads a row.
CREATE INDEX unit_shard ON unit (batch_id, model, number, expires_at, not_before, undone)
WHERE kind = 'shard' AND ended = 0;
CREATE INDEX unit_by_age ON unit (kind, created_at, batch_id)
WHERE kind <> 'shard' AND ended = 0;

-- The slice of the plan that a shard is, and which of its lines are done.
CREATE TABLE shard (
    batch_id TEXT NOT NULL REFERENCES batch (id),
    number INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    model TEXT NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    done BLOB NOT NULL,
    sequence INTEGER NOT NULL DEFAULT 0,
    last_segment TEXT,
    PRIMARY KEY (batch_id, number)
) STRICT, WITHOUT ROWID;

-- One row that `check` rewrites, to prove that the ledger takes writes.
CREATE TABLE pulse (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    at REAL NOT NULL
) STRICT;

PRAGMA user_version = 1;
