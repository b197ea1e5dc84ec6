-- save_suspicion --
UPDATE shard SET suspect = :suspect, deaths = :deaths
WHERE batch_id = :batch_id AND number = :number;
