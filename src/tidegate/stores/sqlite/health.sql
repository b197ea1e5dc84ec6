-- read_version --
PRAGMA user_version;

-- count_batches --
SELECT status, count(*) FROM batch GROUP BY status ORDER BY status;

-- find_oldest --
SELECT id, status, created_at, expires_at, waiting_for
FROM batch
WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling')
ORDER BY created_at, id
LIMIT 1;

-- count_overdue --
SELECT count(*)
FROM batch
WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling') AND expires_at <= :now;

-- count_members --
SELECT count(*) FROM living WHERE expires_at > :now;
