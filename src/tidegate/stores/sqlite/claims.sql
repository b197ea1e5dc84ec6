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

-- held_lines --
-- The few shards that are held now: their number grows with processors, not with batches.
SELECT batch_id, tenant, sum(iif(expires_at > :now, undone, 0)) AS lines
FROM unit
WHERE kind = 'shard' AND ended = 0 AND owner IS NOT NULL
GROUP BY tenant, batch_id;

-- next_tenant --
SELECT min(tenant) AS tenant FROM batch WHERE open_shards > 0 AND tenant > :after;

-- open_batches --
SELECT id, tenant, created_at, expires_at, status FROM batch
WHERE open_shards > 0 AND tenant = :tenant AND (created_at, id) > (:created_at, :id)
ORDER BY created_at, id
LIMIT :limit;

-- open_batch --
SELECT id, tenant, created_at, expires_at, status FROM batch
WHERE id = :id AND open_shards > 0;

-- ending_batches --
SELECT id, tenant, created_at, expires_at, status FROM batch
WHERE open_shards > 0 AND status = 'cancelling'
UNION ALL
SELECT id, tenant, created_at, expires_at, status FROM batch
WHERE open_shards > 0 AND expires_at <= :now AND status <> 'cancelling';

-- open_models --
SELECT
    model,
    sum(expires_at <= :now AND (not_before IS NULL OR not_before <= :now)) AS ready,
    sum(expires_at <= :now) AS free
FROM unit
WHERE kind = 'shard' AND ended = 0 AND batch_id = :batch_id
GROUP BY model;
