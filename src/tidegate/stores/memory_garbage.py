"""What the memory ledger keeps, and which blobs nobody needs or will ever need (PROTOCOL 18)."""

from collections.abc import Sequence

from typing_extensions import override

from tidegate.domain.batch import Batch
from tidegate.domain.blob_names import PlanBlob, ResultBlob, UploadBlob, parse
from tidegate.domain.claim import Kind, Unit
from tidegate.runtime.clock import Clock
from tidegate.stores import fences, ledger
from tidegate.stores.fences import Fate
from tidegate.stores.memory_rows import Entry, Job, Upload, Writer
from tidegate.stores.upkeep import Upkeep


class MemoryGarbage(Upkeep):
    """The rows, and the verbs that a collector of garbage asks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._uploads: dict[str, Upload] = {}
        self._files: dict[str, Entry] = {}
        self._jobs: dict[str, Job] = {}
        self._live: dict[str, Job] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._living: dict[str, float] = {}
        self._writers: dict[str, Writer] = {}
        self._retained: dict[str, float] = {}

    @override
    async def unreferenced(self, names: Sequence[str]) -> list[str]:
        return self._unreferenced(names)

    @override
    async def condemn(self, names: Sequence[str], *, idle_seconds: float) -> list[str]:
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

    def _needed(self) -> set[str]:
        """Return the blobs that rows point to."""
        needed = {part.blob for entry in self._files.values() for part in entry.parts}
        for job in self._live.values():
            if job.batch.plan_blob is not None:
                needed.add(job.batch.plan_blob)
        return needed

    def _retain(self, blobs: set[str], keep_seconds: float) -> None:
        until = self._clock.now() + keep_seconds
        for blob in blobs:
            self._retained[blob] = max(until, self._retained.get(blob, until))

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
        if upload_id not in self._uploads:  # Nobody may begin it now: its bytes are about to go.
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
        fate = fences.plan_fate(job.planning, epoch, self._clock.now())
        if fate is Fate.FENCE:
            job.planning = ledger.fenced(job.planning)
        return fate is not Fate.STAYS

    def _results_go(self, batch_id: str, name: str) -> bool:
        writer = self._writers.get(name)
        if writer is not None and writer.batch_id != batch_id:
            return False  # No name of ours: a writer writes for one batch.
        job = self._jobs.get(batch_id)
        if job is None or (job.batch.is_planned and not job.open) or job.batch.is_terminal:
            return True
        if writer is not None and writer.fenced:
            return True
        # What was written before there were writers carries the name of its owner.
        owner = name if writer is None else writer.owner
        units = [unit for unit in _open_units(job) if job.hold(unit).owner == owner]
        fate = fences.writer_fate([job.hold(unit) for unit in units], self._clock.now())
        if fate is Fate.STAYS:
            return False
        for unit in units:
            job.put(unit, ledger.fenced(job.hold(unit)))
        self._writers[name] = Writer(batch_id, owner, fenced=True)
        return True


def ended_at(batch: Batch) -> float | None:
    """Return when a batch became terminal, or None where it lives."""
    stamps = (batch.completed_at, batch.failed_at, batch.expired_at, batch.cancelled_at)
    return next((stamp for stamp in stamps if stamp is not None), None)


def _open_units(job: Job) -> list[Unit]:
    batch_id = job.batch.id
    units = [Unit(batch_id=batch_id, kind=Kind.PLANNING)]
    units += [Unit(batch_id=batch_id, kind=Kind.SHARD, number=n) for n in sorted(job.open)]
    return [unit for unit in units if not job.hold(unit).ended]
