-- open_unit --
INSERT INTO unit (batch_id, kind, number, tenant, created_at, model, undone)
VALUES (:batch_id, :kind, :number, :tenant, :created_at, :model, :undone);

-- get_hold --
SELECT owner, epoch, expires_at, not_before, ended, crashes FROM unit
WHERE batch_id = :batch_id AND kind = :kind AND number = :number;

-- take --
UPDATE unit SET
    owner = :owner, epoch = :epoch, expires_at = :expires_at, not_before = NULL,
    crashes = :crashes
WHERE batch_id = :batch_id AND kind = :kind AND number = :number AND ended = 0;

-- renew --
UPDATE unit SET expires_at = :expires_at
WHERE
    batch_id = :batch_id AND kind = :kind AND number = :number
    AND owner = :owner AND epoch = :epoch AND ended = 0;

-- hand_back --
UPDATE unit SET owner = NULL, expires_at = 0, not_before = :not_before
WHERE
    batch_id = :batch_id AND kind = :kind AND number = :number
    AND owner = :owner AND epoch = :epoch AND ended = 0;
