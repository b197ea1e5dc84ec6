-- insert_shard --
INSERT INTO shard (batch_id, number, tenant, model, offset, length, lines, done)
VALUES (:batch_id, :number, :tenant, :model, :offset, :length, :lines, :done);

-- save_shard --
UPDATE shard SET done = :done, sequence = :sequence, last_segment = :last_segment
WHERE batch_id = :batch_id AND number = :number;

-- save_shard_unit --
UPDATE unit SET undone = :undone, ended = :ended
WHERE batch_id = :batch_id AND kind = 'shard' AND number = :number;

-- end_unit --
UPDATE unit SET ended = 1 WHERE batch_id = :batch_id AND kind = :kind AND number = :number;

-- set_open_shards --
UPDATE batch SET open_shards = :open_shards WHERE id = :id;

-- begin_writer --
INSERT INTO writer (id, batch_id, tenant, owner, created_at, fenced)
SELECT :id, id, tenant, :owner, :at, :fenced FROM batch WHERE id = :batch_id
ON CONFLICT (id) DO NOTHING;

-- get_writer --
SELECT batch_id, owner, fenced FROM writer WHERE id = :id;

-- fence_writer --
UPDATE writer SET fenced = 1 WHERE id = :id;
