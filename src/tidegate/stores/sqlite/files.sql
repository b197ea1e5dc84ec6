-- begin_upload --
INSERT INTO upload (id, tenant, blob, created_at, state)
VALUES (:id, :tenant, :blob, :at, 'pending')
ON CONFLICT (id) DO NOTHING;

-- get_upload --
SELECT tenant, blob, state, file_id FROM upload WHERE id = :id;

-- finish_upload --
UPDATE upload SET state = 'finished', file_id = :file_id WHERE id = :id AND state = 'pending';

-- abandon_upload --
UPDATE upload SET state = 'abandoned' WHERE id = :id AND state = 'pending';

-- get_file --
SELECT * FROM file WHERE id = :id;

-- put_file --
INSERT INTO file
    (id, tenant, filename, purpose, bytes, created_at, expires_at, batch_id, growing)
VALUES
    (:id, :tenant, :filename, :purpose, :bytes, :created_at, :expires_at, :batch_id, :growing)
ON CONFLICT (id) DO UPDATE
SET bytes = excluded.bytes, expires_at = excluded.expires_at, growing = excluded.growing;

-- delete_file --
UPDATE file SET deleted = 1 WHERE id = :id;

-- list_files_up --
SELECT * FROM file
WHERE
    tenant = :tenant
    AND (created_at, id) > (:created_at, :id)
    AND deleted = 0
    AND (expires_at IS NULL OR expires_at > :now)
    AND (:purpose IS NULL OR purpose = :purpose)
ORDER BY created_at, id
LIMIT :limit;

-- list_files_down --
SELECT * FROM file
WHERE
    tenant = :tenant
    AND (created_at, id) < (:created_at, :id)
    AND deleted = 0
    AND (expires_at IS NULL OR expires_at > :now)
    AND (:purpose IS NULL OR purpose = :purpose)
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- get_parts --
SELECT seq, blob, offset, length FROM part WHERE file_id = :file_id ORDER BY seq;

-- get_last_part --
SELECT seq, blob, offset, length FROM part WHERE file_id = :file_id ORDER BY seq DESC LIMIT 1;

-- put_part --
INSERT INTO part (file_id, seq, tenant, blob, offset, length)
VALUES (:file_id, :seq, :tenant, :blob, :offset, :length)
ON CONFLICT (file_id, seq) DO UPDATE SET length = excluded.length;

-- remove_parts --
DELETE FROM part WHERE file_id = :file_id;

-- list_fragmented --
SELECT f.id, f.tenant, f.bytes, (SELECT count(*) FROM part AS p WHERE p.file_id = f.id) AS parts
FROM file AS f
WHERE
    f.deleted = 0 AND (f.expires_at IS NULL OR f.expires_at > :now)
    AND EXISTS (SELECT 1 FROM part AS q WHERE q.file_id = f.id AND q.seq >= :parts_min - 1)
ORDER BY parts DESC, f.id
LIMIT :limit;

-- retain_blob --
INSERT INTO retained (blob, tenant, until) VALUES (:blob, :tenant, :until)
ON CONFLICT (blob) DO UPDATE SET until = max(until, excluded.until);

-- is_needed --
SELECT
    EXISTS (SELECT 1 FROM part WHERE blob = :blob)
    OR EXISTS (
        SELECT 1 FROM batch
        WHERE
            plan_blob = :blob AND plan_blob IS NOT NULL
            AND status NOT IN (SELECT value FROM json_each(:terminal))
    );
