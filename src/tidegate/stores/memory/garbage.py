"""Blobs that no row needs (PROTOCOL 18), in the memory ledger."""

from collections.abc import Sequence

from typing_extensions import override

from tidegate.domain.blob_names import PlanBlob, ResultBlob, UploadBlob, parse
from tidegate.domain.claim import Kind, Unit
from tidegate.domain.ledger import claims as claim_rules, garbage as garbage_rules
from tidegate.domain.ledger.garbage import Fate
from tidegate.stores.memory.tables import Job, MemoryTables, Upload, Writer


class GarbageVerbs(MemoryTables):
    """Blobs that no row needs (PROTOCOL 18)."""

    @override
    async def list_unreferenced(self, names: Sequence[str]) -> list[str]:
        return self._unreferenced(names)

    @override
    async def fence_and_list_deletable(
        self, names: Sequence[str], *, idle_seconds: float
    ) -> list[str]:
        idle_since = self._clock.now() - idle_seconds
        return [name for name in self._unreferenced(names) if self._may_go(name, idle_since)]

    @override
    async def list_retained(self, *, limit: int) -> list[str]:
        assert limit > 0, limit
        now = self._clock.now()
        over = [(until, blob) for blob, until in self._retained.items() if until <= now]
        return [blob for _, blob in sorted(over)[:limit]]

    @override
    async def forget_retained(self, names: Sequence[str]) -> None:
        for name in names:
            self._retained.pop(name, None)

    def _unreferenced(self, names: Sequence[str]) -> list[str]:
        now = self._clock.now()
        needed = self._needed()
        needed |= {blob for blob, until in self._retained.items() if now < until}
        return [name for name in dict.fromkeys(names) if name not in needed]

    def _may_go(self, name: str, idle_since: float) -> bool:
        match parse(name):
            case None:
                return False
            case UploadBlob(upload_id=upload_id):
                return self._upload_goes(upload_id, name, idle_since)
            case PlanBlob(batch_id=batch_id, epoch=epoch):
                return self._plan_goes(batch_id, epoch)
            case ResultBlob(batch_id=batch_id, writer=writer):
                return self._results_go(batch_id, writer)

    def _upload_goes(self, upload_id: str, name: str, idle_since: float) -> bool:
        now = self._clock.now()
        if upload_id not in self._uploads:  # It must not begin now: its bytes will be deleted.
            self._uploads[upload_id] = Upload("", name, now, abandoned=True)
        uploads = [
            upload
            for key, upload in self._uploads.items()
            if key == upload_id or upload.blob == name
        ]
        pending = [upload for upload in uploads if upload.is_pending]
        if any(upload.created_at > idle_since for upload in pending):
            return False
        for upload in pending:
            upload.abandoned = True
        return True

    def _plan_goes(self, batch_id: str, epoch: int) -> bool:
        job = self._jobs.get(batch_id)
        if job is None:
            return True
        fate = garbage_rules.plan_fate(job.planning, epoch, self._clock.now())
        if fate is Fate.FENCE:
            job.planning = claim_rules.fenced(job.planning)
        return fate is not Fate.STAYS

    def _results_go(self, batch_id: str, name: str) -> bool:
        writer = self._writers.get(name)
        if writer is not None and writer.batch_id != batch_id:
            return False  # Not one of our names: a writer writes for one batch.
        job = self._jobs.get(batch_id)
        if job is None or (job.batch.is_planned and not job.open) or job.batch.is_terminal:
            return True
        if writer is not None and writer.fenced:
            return True
        # Results that were written before there were writers carry the name of their owner.
        owner = name if writer is None else writer.owner
        units = [unit for unit in _open_units(job) if job.hold(unit).owner == owner]
        fate = garbage_rules.writer_fate([job.hold(unit) for unit in units], self._clock.now())
        if fate is Fate.STAYS:
            return False
        for unit in units:
            job.put(unit, claim_rules.fenced(job.hold(unit)))
        self._writers[name] = Writer(batch_id, owner, fenced=True)
        return True


def _open_units(job: Job) -> list[Unit]:
    batch_id = job.batch.id
    units = [Unit(batch_id=batch_id, kind=Kind.PLANNING)]
    units += [Unit(batch_id=batch_id, kind=Kind.SHARD, number=n) for n in sorted(job.open)]
    return [unit for unit in units if not job.hold(unit).ended]
