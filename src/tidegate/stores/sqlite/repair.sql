-- list_references --
SELECT blob, max(bytes_needed) AS bytes_needed FROM (
    SELECT * FROM (
        SELECT blob, max(offset + length) AS bytes_needed FROM part
        WHERE blob > :after
        GROUP BY blob ORDER BY blob LIMIT :limit
    )
    UNION ALL
    SELECT * FROM (
        SELECT
            b.plan_blob AS blob,
            (SELECT max(s.offset + s.length) FROM shard AS s WHERE s.batch_id = b.id)
                AS bytes_needed
        FROM batch AS b
        WHERE
            b.plan_blob > :after
            AND b.status NOT IN (SELECT value FROM json_each(:terminal))
        ORDER BY b.plan_blob LIMIT :limit
    )
)
GROUP BY blob
ORDER BY blob
LIMIT :limit;

-- list_batches_of --
SELECT * FROM batch
WHERE id IN (
    SELECT f.batch_id FROM part AS p
    JOIN file AS f ON f.id = p.file_id
    WHERE p.blob = :blob
    UNION ALL
    SELECT id FROM batch
    WHERE
        plan_blob = :blob AND plan_blob IS NOT NULL
        AND status NOT IN (SELECT value FROM json_each(:terminal))
)
ORDER BY id;

-- get_shards --
SELECT
    s.batch_id, s.number, s.model, s.offset, s.length, s.lines, s.done, s.sequence, s.last_segment,
    u.epoch, u.ended, u.crashes, s.suspect, s.deaths
FROM shard AS s
JOIN unit AS u ON u.batch_id = s.batch_id AND u.kind = 'shard' AND u.number = s.number
WHERE s.batch_id = :batch_id
ORDER BY s.number;

-- reopen_unit --
UPDATE unit SET
    owner = :owner, epoch = :epoch, expires_at = 0, not_before = NULL, ended = 0, undone = :undone
WHERE batch_id = :batch_id AND kind = :kind AND number = :number;
