-- What the collector, quarantine and shared limits need. Times are Unix seconds, flags are 0 or 1.

-- How many claims were lost by a crash: taken over though nobody had handed them back.
ALTER TABLE unit ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;

-- The line that was recorded before it was sent alone, and {line: child processes that died of it}.
ALTER TABLE shard ADD COLUMN suspect INTEGER;
ALTER TABLE shard ADD COLUMN deaths TEXT NOT NULL DEFAULT '{}';

-- A released file has lost its parts for good; its row marks its place in lists.
ALTER TABLE file ADD COLUMN released INTEGER NOT NULL DEFAULT 0;

-- Processors that count as living until `expires_at`. They work for all tenants.
CREATE TABLE living (
    owner TEXT NOT NULL PRIMARY KEY,
    expires_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Names under which results are written. What a fenced one wrote may be gone.
CREATE TABLE writer (
    id TEXT NOT NULL PRIMARY KEY,
    batch_id TEXT NOT NULL REFERENCES batch (id),
    tenant TEXT NOT NULL,
    owner TEXT NOT NULL,
    created_at REAL NOT NULL,
    fenced INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX writer_by_batch ON writer (batch_id);

-- Blobs that no row needs any more, kept for readers.
CREATE TABLE retained (
    blob TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL,
    until REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX retained_by_time ON retained (until, blob);

-- Who needs a blob, and who may still write it. None of these is touched by a commit that only
-- lengthens parts.
CREATE INDEX part_by_blob ON part (blob);
CREATE INDEX batch_by_plan ON batch (plan_blob) WHERE plan_blob IS NOT NULL;
CREATE INDEX upload_by_blob ON upload (blob);

-- Files that nobody can see, whether a batch holds them, and what is left of them.
CREATE INDEX file_deleted ON file (id) WHERE deleted = 1 AND released = 0;
CREATE INDEX file_expiring ON file (expires_at) WHERE expires_at IS NOT NULL AND released = 0;
CREATE INDEX file_released ON file (created_at, id) WHERE released = 1;
CREATE INDEX batch_by_input ON batch (input_file_id) WHERE holds_input = 1;
CREATE INDEX upload_by_file ON upload (file_id) WHERE file_id IS NOT NULL;
CREATE INDEX upload_abandoned ON upload (created_at, id) WHERE state = 'abandoned';

-- Batches by their end; those that live have none.
CREATE INDEX batch_by_end
ON batch (coalesce(completed_at, failed_at, expired_at, cancelled_at), id)
WHERE coalesce(completed_at, failed_at, expired_at, cancelled_at) IS NOT NULL;

PRAGMA user_version = 2;
