"""The verbs of the memory ledger that keep it clean and its processors fair."""

from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import override

from tidegate.domain.batch import Batch
from tidegate.domain.claim import Claim, Kind
from tidegate.domain.file import Part, merged
from tidegate.domain.shard import Shard
from tidegate.stores import fences, ledger, mending
from tidegate.stores.memory_garbage import MemoryGarbage, ended_at
from tidegate.stores.memory_rows import Entry, Job, Writer, place
from tidegate.stores.upkeep import Fragmented, OldBatch, Purged, Reference, Repair, UnusedFile


class MemoryUpkeep(MemoryGarbage):
    """All of `Upkeep` but the questions about garbage."""

    # Who is alive, who writes

    @override
    async def beat(self, owner: str, *, lease_seconds: float) -> None:
        now = self._clock.now()
        # As in every ledger the dead are forgotten here, and a clock that is set back revives none.
        self._living = {name: until for name, until in self._living.items() if now < until}
        self._living[owner] = now + lease_seconds

    @override
    async def leave(self, owner: str) -> None:
        self._living.pop(owner, None)

    @override
    async def get_living(self) -> tuple[str, ...]:
        now = self._clock.now()
        return tuple(sorted(owner for owner, until in self._living.items() if now < until))

    @override
    async def begin_writer(self, writer: str, *, batch_id: str, owner: str, at: float) -> None:
        if batch_id in self._jobs:
            self._writers.setdefault(writer, Writer(batch_id, owner))

    # Poison

    @override
    async def record_suspect(self, claim: Claim, index: int) -> None:
        job, shard = self._working(claim, index)
        job.shards[claim.unit.number] = replace(shard, suspect=index)

    @override
    async def record_death(self, claim: Claim, index: int) -> int:
        job, shard = self._working(claim, index)
        shard = fences.bereaved(shard, index)
        job.shards[claim.unit.number] = shard
        return shard.deaths.get(index, 0)

    # Files and batches that have had their time

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
        ending = [job.batch for job in self._live.values() if ledger.has_run(job.batch, now)]
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

    # Compaction

    @override
    async def list_fragmented(self, *, parts_min: int, limit: int) -> list[Fragmented]:
        assert parts_min > 0, parts_min
        assert limit > 0, limit
        now = self._clock.now()
        found = [
            Fragmented(
                file_id=entry.file.id,
                tenant=entry.file.tenant,
                parts=len(entry.parts),
                bytes=entry.file.bytes,
            )
            for entry in self._files.values()
            if len(entry.parts) >= parts_min
            and ledger.is_visible(entry.file, now, deleted=entry.deleted)
        ]
        return sorted(found, key=lambda one: (-one.parts, one.file_id))[:limit]

    @override
    async def swap_parts(
        self,
        upload_id: str,
        file_id: str,
        *,
        old: Sequence[Part],
        new: Sequence[Part],
        keep_seconds: float,
    ) -> bool:
        upload, entry = self._uploads.get(upload_id), self._files.get(file_id)
        if upload is not None and upload.file_id is not None:
            return upload.file_id == file_id
        if upload is None or upload.abandoned or entry is None:
            return False
        fences.check_swap(old, new, upload.blob)
        hidden = not ledger.is_visible(entry.file, self._clock.now(), deleted=entry.deleted)
        if hidden or entry.parts[: len(old)] != list(old):
            return False
        assert upload.tenant == entry.file.tenant, "the upload of another tenant"
        entry.parts = merged([*new, *entry.parts[len(old) :]])
        upload.file_id = file_id
        self._retain({part.blob for part in old} - self._needed(), keep_seconds)
        return True

    # Drift

    @override
    async def list_references(self, *, after: str, limit: int) -> list[Reference]:
        assert limit > 0, limit
        ends: dict[str, int] = {}
        for entry in self._files.values():
            for part in entry.parts:
                ends[part.blob] = max(part.offset + part.length, ends.get(part.blob, 0))
        for job in self._live.values():
            blob = job.batch.plan_blob
            for shard in job.shards.values() if blob is not None else ():
                assert blob is not None
                ends[blob] = max(shard.plan.offset + shard.plan.length, ends.get(blob, 0))
        names = sorted(name for name in ends if name > after)[:limit]
        return [Reference(blob=name, bytes_needed=ends[name]) for name in names]

    @override
    async def list_batches_of(self, blob: str) -> list[Batch]:
        found = {
            entry.file.batch_id or ""
            for entry in self._files.values()
            if any(part.blob == blob for part in entry.parts)
        }
        found |= {job.batch.id for job in self._live.values() if job.batch.plan_blob == blob}
        return [self._jobs[key].batch for key in sorted(found & self._jobs.keys())]

    @override
    async def get_shards(self, batch_id: str) -> list[Shard]:
        job = self._jobs.get(batch_id)
        return [] if job is None else [job.shard(number) for number in sorted(job.shards)]

    @override
    async def repair(self, repair: Repair) -> bool:
        job = self._jobs.get(repair.batch_id)
        if job is None or not job.open:
            return False
        shards = {
            one.number: job.shard(one.number) for one in repair.shards if one.number in job.shards
        }
        entries = {one.file_id: self._files.get(one.file_id) for one in repair.files}
        parts = {key: () if e is None else tuple(e.parts) for key, e in entries.items()}
        if mending.is_done_already(repair, shards, parts):
            return True
        if not mending.is_expected(repair, shards, parts):
            return False
        self._mend(job, repair)
        return True

    def _mend(self, job: Job, repair: Repair) -> None:
        mending.check_lost(repair, [job.shards[one.number] for one in repair.shards])
        batch = mending.mended_batch(job.batch, repair)
        for one in repair.shards:
            job.shards[one.number] = mending.mended_shard(job.shards[one.number], one)
            job.holds[one.number] = mending.reopened(job.holds[one.number])
            job.open.add(one.number)
        for file_repair in repair.files:
            entry = self._files[file_repair.file_id]
            entry.file = mending.mended_file(entry.file, file_repair)
            entry.parts = list(file_repair.new)
        for name in mending.bereft_writers(repair):
            writer = self._writers.get(name)
            if writer is not None:
                writer.fenced = True
        job.batch = batch

    def _working(self, claim: Claim, index: int) -> tuple[Job, Shard]:
        assert claim.unit.kind is Kind.SHARD, claim.unit
        job = self._jobs.get(claim.unit.batch_id)
        number = claim.unit.number
        known = job is not None and number in job.shards
        shard = job.shard(number) if job is not None and known else None
        shard = fences.check_working(shard, claim, index)
        assert job is not None
        return job, shard

    def _why_unused(self, entry: Entry) -> str | None:
        if entry.released:
            return None
        why = fences.unused_because(entry.file, self._clock.now(), deleted=entry.deleted)
        held = why is not None and any(
            job.holds_input and job.batch.input_file_id == entry.file.id
            for job in self._live.values()
        )
        return None if held else why
