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
