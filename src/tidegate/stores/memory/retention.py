"""Files and batches that are no longer wanted, in the memory ledger."""

from collections.abc import Sequence

from typing_extensions import override

from tidegate.domain.batch import Batch
from tidegate.domain.ledger import batches as batch_rules, files as file_rules
from tidegate.domain.ledger.values import OldBatch, Purged, UnusedFile
from tidegate.stores.memory.tables import Entry, MemoryTables, place


class RetentionVerbs(MemoryTables):
    """Files and batches that are no longer wanted."""

    @override
    async def list_unused_files(self, *, limit: int) -> list[UnusedFile]:
        assert limit > 0, limit
        unused = [entry for entry in self._files.values() if self._why_unused(entry)]
        unused.sort(key=lambda entry: place(entry.file))
        return [
            UnusedFile(
                file_id=entry.file.id,
                tenant=entry.file.tenant,
                bytes=entry.file.bytes,
                why=self._why_unused(entry) or "",
            )
            for entry in unused[:limit]
        ]

    @override
    async def release_files(self, file_ids: Sequence[str], *, keep_seconds: float) -> list[str]:
        gone: list[str] = []
        for file_id in dict.fromkeys(file_ids):
            entry = self._files.get(file_id)
            if entry is None:
                continue
            if self._why_unused(entry):
                self._retain({part.blob for part in entry.parts}, keep_seconds)
                entry.release()
            if entry.released:
                gone.append(file_id)
        return gone

    @override
    async def list_ending(self, *, limit: int) -> list[Batch]:
        assert limit > 0, limit
        now = self._clock.now()
        ending = [
            job.batch for job in self._live.values() if batch_rules.is_due_to_end(job.batch, now)
        ]
        return sorted(ending, key=place)[:limit]

    @override
    async def list_old_batches(self, *, ended_seconds: float, limit: int) -> list[OldBatch]:
        assert limit > 0, limit
        ended_by = self._clock.now() - ended_seconds
        found = [
            OldBatch(batch_id=job.batch.id, tenant=job.batch.tenant, ended_at=at)
            for job in self._jobs.values()
            if (at := ended_at(job.batch)) is not None and at <= ended_by
        ]
        return sorted(found, key=lambda old: (old.ended_at, old.batch_id))[:limit]

    @override
    async def drop_batches(self, batch_ids: Sequence[str]) -> int:
        dropped = 0
        for batch_id in dict.fromkeys(batch_ids):
            job = self._jobs.get(batch_id)
            if job is None or not job.batch.is_terminal:
                continue
            del self._jobs[batch_id]
            if job.batch.idempotency_key is not None:
                del self._keys[job.batch.tenant, job.batch.idempotency_key]
            for writer in [name for name, w in self._writers.items() if w.batch_id == batch_id]:
                del self._writers[writer]
            dropped += 1
        return dropped

    @override
    async def purge(self, *, age_seconds: float, limit: int) -> Purged:
        assert limit > 0, limit
        created_by = self._clock.now() - age_seconds
        newest: dict[str, float] = {}
        for upload in self._uploads.values():
            if upload.file_id is not None:
                newest[upload.file_id] = max(
                    upload.created_at, newest.get(upload.file_id, upload.created_at)
                )
        files = [
            entry.file
            for entry in self._files.values()
            if entry.released
            and max(entry.file.created_at, newest.get(entry.file.id, -1.0)) <= created_by
        ]
        gone = {file.id for file in sorted(files, key=place)[:limit]}
        abandoned = sorted(
            (upload.created_at, key)
            for key, upload in self._uploads.items()
            if upload.abandoned and upload.created_at <= created_by
        )
        uploads = [key for _, key in abandoned[:limit]]
        uploads += [key for key, upload in self._uploads.items() if upload.file_id in gone]
        for key in uploads:
            del self._uploads[key]
        for file_id in gone:
            del self._files[file_id]
        return Purged(files=len(gone), uploads=len(uploads))

    def _why_unused(self, entry: Entry) -> str | None:
        if entry.released:
            return None
        why = file_rules.unused_because(entry.file, self._clock.now(), deleted=entry.deleted)
        held = why is not None and any(
            job.holds_input and job.batch.input_file_id == entry.file.id
            for job in self._live.values()
        )
        return None if held else why


def ended_at(batch: Batch) -> float | None:
    """Return when a batch became terminal, or None if it is live."""
    stamps = (batch.completed_at, batch.failed_at, batch.expired_at, batch.cancelled_at)
    return next((stamp for stamp in stamps if stamp is not None), None)
