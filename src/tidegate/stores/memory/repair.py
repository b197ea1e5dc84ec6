"""References to blobs, and repair (PROTOCOL 19), in the memory ledger."""

from typing_extensions import override

from tidegate.domain.batch import Batch
from tidegate.domain.ledger import repair as repair_rules
from tidegate.domain.ledger.values import Reference, Repair
from tidegate.domain.shard import Shard
from tidegate.stores.memory.tables import Job, MemoryTables


class RepairVerbs(MemoryTables):
    """References to blobs, and repair (PROTOCOL 19)."""

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
        if repair_rules.is_done_already(repair, shards, parts):
            return True
        if not repair_rules.is_expected(repair, shards, parts):
            return False
        self._repair(job, repair)
        return True

    def _repair(self, job: Job, repair: Repair) -> None:
        repair_rules.check_lost_lines(repair, [job.shards[one.number] for one in repair.shards])
        batch = repair_rules.repaired_batch(job.batch, repair)
        for one in repair.shards:
            job.shards[one.number] = repair_rules.repaired_shard(job.shards[one.number], one)
            job.holds[one.number] = repair_rules.reopened(job.holds[one.number])
            job.open.add(one.number)
        for file_repair in repair.files:
            entry = self._files[file_repair.file_id]
            entry.file = repair_rules.repaired_file(entry.file, file_repair)
            entry.parts = list(file_repair.new)
        for name in repair_rules.writers_of_lost_blobs(repair):
            writer = self._writers.get(name)
            if writer is not None:
                writer.fenced = True
        job.batch = batch
