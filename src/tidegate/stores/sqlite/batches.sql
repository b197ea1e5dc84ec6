-- insert_batch --
INSERT INTO batch (
    id, tenant, endpoint, input_file_id, completion_window, status, created_at, expires_at,
    version, metadata, output_expires_seconds, in_progress_at, finalizing_at, completed_at,
    failed_at, expired_at, cancelling_at, cancelled_at, total, completed, failed, expired,
    input_tokens, cached_tokens, output_tokens, reasoning_tokens, problems, models, plan_blob,
    output_file_id, error_file_id, output_bytes, error_bytes, waiting_for, idempotency_key,
    request_digest, holds_input
) VALUES (
    :id, :tenant, :endpoint, :input_file_id, :completion_window, :status, :created_at, :expires_at,
    :version, :metadata, :output_expires_seconds, :in_progress_at, :finalizing_at, :completed_at,
    :failed_at, :expired_at, :cancelling_at, :cancelled_at, :total, :completed, :failed, :expired,
    :input_tokens, :cached_tokens, :output_tokens, :reasoning_tokens, :problems, :models,
    :plan_blob, :output_file_id, :error_file_id, :output_bytes, :error_bytes, :waiting_for,
    :idempotency_key, :request_digest, :holds_input
);

-- save_batch --
UPDATE batch SET
    status = :status, version = :version, in_progress_at = :in_progress_at,
    finalizing_at = :finalizing_at, completed_at = :completed_at, failed_at = :failed_at,
    expired_at = :expired_at, cancelling_at = :cancelling_at, cancelled_at = :cancelled_at,
    total = :total, completed = :completed, failed = :failed, expired = :expired,
    input_tokens = :input_tokens, cached_tokens = :cached_tokens, output_tokens = :output_tokens,
    reasoning_tokens = :reasoning_tokens, output_bytes = :output_bytes, error_bytes = :error_bytes,
    waiting_for = :waiting_for
WHERE id = :id;

-- save_plan --
UPDATE batch SET
    models = :models, plan_blob = :plan_blob, output_file_id = :output_file_id,
    error_file_id = :error_file_id
WHERE id = :id;

-- save_problems --
UPDATE batch SET problems = :problems WHERE id = :id;

-- get_batch --
SELECT * FROM batch WHERE id = :id;

-- get_batch_by_key --
SELECT * FROM batch WHERE tenant = :tenant AND idempotency_key = :idempotency_key;

-- list_batches --
SELECT * FROM batch
WHERE tenant = :tenant AND (created_at, id) < (:created_at, :id)
ORDER BY created_at DESC, id DESC
LIMIT :limit;

-- get_states --
SELECT id, status FROM batch WHERE id IN (SELECT value FROM json_each(:ids));

-- note_waiting --
UPDATE batch SET waiting_for = :reason
WHERE id = :id AND status NOT IN (SELECT value FROM json_each(:terminal));
