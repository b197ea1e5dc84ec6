-- list_unreferenced --
SELECT n.value FROM json_each(:names) AS n
WHERE
    NOT EXISTS (SELECT 1 FROM part AS p WHERE p.blob = n.value)
    AND NOT EXISTS (
        SELECT 1 FROM batch AS b
        WHERE
            b.plan_blob = n.value AND b.plan_blob IS NOT NULL
            AND b.status NOT IN (SELECT value FROM json_each(:terminal))
    )
    AND NOT EXISTS (SELECT 1 FROM retained AS r WHERE r.blob = n.value AND r.until > :now)
ORDER BY n.key;

-- bar_upload --
INSERT INTO upload (id, tenant, blob, created_at, state)
VALUES (:id, '', :blob, :now, 'abandoned')
ON CONFLICT (id) DO NOTHING;

-- count_busy_uploads --
SELECT count(*) FROM upload
WHERE (blob = :blob OR id = :id) AND state = 'pending' AND created_at > :idle_since;

-- abandon_uploads --
UPDATE upload SET state = 'abandoned' WHERE (blob = :blob OR id = :id) AND state = 'pending';

-- list_open_claims --
SELECT owner, epoch, expires_at, not_before, ended, crashes, kind, number FROM unit
WHERE batch_id = :batch_id AND owner = :owner AND ended = 0
ORDER BY kind, number;

-- fence_unit --
UPDATE unit SET owner = NULL, expires_at = 0, epoch = :epoch, crashes = :crashes
WHERE batch_id = :batch_id AND kind = :kind AND number = :number AND ended = 0;
