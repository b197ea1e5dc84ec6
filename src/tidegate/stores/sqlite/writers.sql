-- begin_writer --
INSERT INTO writer (id, batch_id, tenant, owner, created_at, fenced)
SELECT :id, id, tenant, :owner, :at, :fenced FROM batch WHERE id = :batch_id
ON CONFLICT (id) DO NOTHING;

-- get_writer --
SELECT batch_id, owner, fenced FROM writer WHERE id = :id;

-- fence_writer --
UPDATE writer SET fenced = 1 WHERE id = :id;
