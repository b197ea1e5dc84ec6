-- list_unused_files --
SELECT f.id, f.tenant, f.bytes, f.why FROM (
    SELECT id, tenant, bytes, created_at, 'deleted' AS why FROM file
    WHERE deleted = 1 AND released = 0
    UNION ALL
    SELECT id, tenant, bytes, created_at, 'expired' AS why FROM file
    WHERE expires_at <= :now AND released = 0 AND deleted = 0
) AS f
WHERE NOT EXISTS (
    SELECT 1 FROM batch AS b
    WHERE
        b.input_file_id = f.id AND b.holds_input = 1
        AND b.status NOT IN (SELECT value FROM json_each(:terminal))
)
ORDER BY f.created_at, f.id
LIMIT :limit;

-- is_held --
SELECT EXISTS (
    SELECT 1 FROM batch
    WHERE
        input_file_id = :file_id AND holds_input = 1
        AND status NOT IN (SELECT value FROM json_each(:terminal))
);

-- retain_parts --
INSERT INTO retained (blob, tenant, until)
SELECT DISTINCT blob, tenant, :until FROM part WHERE file_id = :file_id
ON CONFLICT (blob) DO UPDATE SET until = max(until, excluded.until);

-- release_file --
UPDATE file SET deleted = 1, released = 1 WHERE id = :file_id;

-- list_ending --
SELECT * FROM batch
WHERE
    id IN (
        -- Every batch that lives has a unit that has not ended.
        SELECT batch_id FROM unit WHERE kind = 'shard' AND ended = 0
        UNION
        SELECT batch_id FROM unit
        WHERE kind IN ('planning', 'finalizing') AND kind <> 'shard' AND ended = 0
    )
    AND (expires_at <= :now OR status IN ('cancelling', 'finalizing'))
    AND status NOT IN (SELECT value FROM json_each(:terminal))
ORDER BY created_at, id
LIMIT :limit;

-- list_old_batches --
SELECT id, tenant, coalesce(completed_at, failed_at, expired_at, cancelled_at) AS ended_at
FROM batch
WHERE coalesce(completed_at, failed_at, expired_at, cancelled_at) <= :ended_by
ORDER BY coalesce(completed_at, failed_at, expired_at, cancelled_at), id
LIMIT :limit;

-- remove_writers --
DELETE FROM writer WHERE batch_id = :batch_id;

-- remove_shards --
DELETE FROM shard WHERE batch_id = :batch_id;

-- remove_units --
DELETE FROM unit WHERE batch_id = :batch_id;

-- remove_batch --
DELETE FROM batch WHERE id = :batch_id;

-- list_purgeable_files --
SELECT f.id FROM file AS f
WHERE
    f.released = 1 AND f.created_at <= :created_by
    AND NOT EXISTS (
        SELECT 1 FROM upload AS u WHERE u.file_id = f.id AND u.created_at > :created_by
    )
ORDER BY f.created_at, f.id
LIMIT :limit;

-- remove_uploads_of --
DELETE FROM upload WHERE file_id = :file_id;

-- remove_file --
DELETE FROM file WHERE id = :file_id;

-- remove_abandoned_uploads --
DELETE FROM upload WHERE id IN (
    SELECT id FROM upload
    WHERE state = 'abandoned' AND created_at <= :created_by
    ORDER BY created_at, id
    LIMIT :limit
);

-- list_retained --
SELECT blob FROM retained WHERE until <= :now ORDER BY until, blob LIMIT :limit;

-- forget_retained --
DELETE FROM retained WHERE blob IN (SELECT value FROM json_each(:names));
