-- oldest_planning --
SELECT u.batch_id FROM unit AS u
JOIN batch AS b ON b.id = u.batch_id
WHERE
    u.kind = 'planning' AND u.ended = 0 AND u.kind <> 'shard'
    AND u.expires_at <= :now
    AND (
        u.not_before IS NULL OR u.not_before <= :now
        OR b.status = 'cancelling' OR b.expires_at <= :now
    )
    AND (NOT :ending_only OR b.status = 'cancelling' OR b.expires_at <= :now)
ORDER BY u.created_at, u.batch_id
LIMIT 1;

-- oldest_finalizing --
SELECT u.batch_id FROM unit AS u
WHERE
    u.kind = 'finalizing' AND u.ended = 0 AND u.kind <> 'shard'
    AND u.expires_at <= :now
    AND (u.not_before IS NULL OR u.not_before <= :now)
ORDER BY u.created_at, u.batch_id
LIMIT 1;

-- claimable_shards --
SELECT number FROM unit
WHERE
    kind = 'shard' AND ended = 0
    AND batch_id = :batch_id AND model = :model
    AND expires_at <= :now
    AND (:ending OR not_before IS NULL OR not_before <= :now)
ORDER BY number
LIMIT :limit;

-- get_shard --
SELECT
    s.batch_id, s.number, s.model, s.offset, s.length, s.lines, s.done, s.sequence, s.last_segment,
    u.epoch, u.ended, u.crashes, s.suspect, s.deaths
FROM shard AS s
JOIN unit AS u ON u.batch_id = s.batch_id AND u.kind = 'shard' AND u.number = s.number
WHERE s.batch_id = :batch_id AND s.number = :number;
