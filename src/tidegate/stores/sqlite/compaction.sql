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
