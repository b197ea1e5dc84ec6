-- What a poll asks: batches with open shards by tenant and age, those that are ending, and the
-- shards that are held. None of these indexes grows with the open shards of the deployment.

CREATE INDEX batch_open ON batch (tenant, created_at, id) WHERE open_shards > 0;
CREATE INDEX batch_open_by_window ON batch (expires_at, id) WHERE open_shards > 0;
CREATE INDEX batch_cancelling ON batch (id) WHERE open_shards > 0 AND status = 'cancelling';
CREATE INDEX unit_held ON unit (tenant, batch_id)
WHERE kind = 'shard' AND ended = 0 AND owner IS NOT NULL;

PRAGMA user_version = 3;
