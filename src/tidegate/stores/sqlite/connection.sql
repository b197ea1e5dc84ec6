-- settings --
PRAGMA synchronous = FULL;
PRAGMA fullfsync = ON;
PRAGMA checkpoint_fullfsync = ON;
PRAGMA foreign_keys = ON;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -16384;
PRAGMA wal_autocheckpoint = 4000;
PRAGMA journal_size_limit = 67108864;

-- use_wal --
PRAGMA journal_mode = WAL;

-- only_read --
PRAGMA query_only = ON;

-- read_version --
PRAGMA user_version;

-- begin_write --
BEGIN IMMEDIATE;

-- begin_read --
BEGIN;

-- commit --
COMMIT;

-- roll_back --
ROLLBACK;

-- begin_step --
SAVEPOINT step;

-- undo_step --
ROLLBACK TO step;

-- end_step --
RELEASE step;

-- write_pulse --
INSERT INTO pulse (id, at) VALUES (1, :at)
ON CONFLICT (id) DO UPDATE SET at = excluded.at;

-- read_pulse --
SELECT count(*) FROM pulse;
