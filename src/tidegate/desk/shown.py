"""What a user sees of files and batches that are still being written."""

from dataclasses import replace

from tidegate.desk.settings import Settings
from tidegate.domain.batch import Batch
from tidegate.domain.file import File


def is_shown(file: File, settings: Settings) -> bool:
    """Say whether users see this file yet."""
    return settings.early_results or not file.growing


def shown_batch(batch: Batch, settings: Settings) -> Batch:
    """Return the batch with the ids of its files only where there is something to read."""
    visible = batch.is_terminal or settings.early_results
    output = batch.output_file_id if visible and batch.output_bytes else None
    errors = batch.error_file_id if visible and batch.error_bytes else None
    return replace(batch, output_file_id=output, error_file_id=errors)
