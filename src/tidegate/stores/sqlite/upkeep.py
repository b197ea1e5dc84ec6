"""The verbs of the SQLite ledger that keep it clean and its processors fair."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import apsw
from typing_extensions import override

from tidegate.domain.batch import Batch
from tidegate.domain.claim import Claim
from tidegate.domain.file import Part
from tidegate.domain.shard import Shard
from tidegate.stores.sqlite import aging, compaction, drift, garbage, living, poison, writers
from tidegate.stores.upkeep import (
    Fragmented,
    OldBatch,
    Purged,
    Reference,
    Repair,
    UnusedFile,
    Upkeep,
)

T = TypeVar("T")


class SqliteUpkeep(Upkeep):
    """Each verb in the lane that it takes."""

    @abstractmethod
    async def _write(self, work: Callable[[apsw.Connection], T]) -> T:
        """Do the work in one transaction that writes."""

    @abstractmethod
    async def _read(self, work: Callable[[apsw.Connection], T]) -> T:
        """Do the work in one transaction that reads."""

    @abstractmethod
    def _now(self) -> float:
        """Return the ledger's time."""

    @override
    async def beat(self, owner: str, *, lease_seconds: float) -> None:
        await self._write(
            lambda db: living.beat(db, owner, now=self._now(), lease_seconds=lease_seconds)
        )

    @override
    async def leave(self, owner: str) -> None:
        await self._write(lambda db: living.leave(db, owner))

    @override
    async def get_living(self) -> tuple[str, ...]:
        return await self._read(lambda db: living.get_living(db, self._now()))

    @override
    async def begin_writer(self, writer: str, *, batch_id: str, owner: str, at: float) -> None:
        await self._write(
            lambda db: writers.begin_writer(db, writer, batch_id=batch_id, owner=owner, at=at)
        )

    @override
    async def record_suspect(self, claim: Claim, index: int) -> None:
        await self._write(lambda db: poison.record_suspect(db, claim, index))

    @override
    async def record_death(self, claim: Claim, index: int) -> int:
        return await self._write(lambda db: poison.record_death(db, claim, index))

    @override
    async def list_unused_files(self, *, limit: int) -> list[UnusedFile]:
        return await self._read(
            lambda db: aging.list_unused_files(db, now=self._now(), limit=limit)
        )

    @override
    async def release_files(self, file_ids: Sequence[str], *, keep_seconds: float) -> list[str]:
        return await self._write(
            lambda db: aging.release_files(db, file_ids, now=self._now(), keep_seconds=keep_seconds)
        )

    @override
    async def list_ending(self, *, limit: int) -> list[Batch]:
        return await self._read(lambda db: aging.list_ending(db, now=self._now(), limit=limit))

    @override
    async def list_old_batches(self, *, ended_seconds: float, limit: int) -> list[OldBatch]:
        return await self._read(
            lambda db: aging.list_old_batches(db, ended_by=self._now() - ended_seconds, limit=limit)
        )

    @override
    async def drop_batches(self, batch_ids: Sequence[str]) -> int:
        return await self._write(lambda db: aging.drop_batches(db, batch_ids))

    @override
    async def purge(self, *, age_seconds: float, limit: int) -> Purged:
        return await self._write(
            lambda db: aging.purge(db, created_by=self._now() - age_seconds, limit=limit)
        )

    @override
    async def unreferenced(self, names: Sequence[str]) -> list[str]:
        return await self._read(lambda db: garbage.unreferenced(db, names, self._now()))

    @override
    async def condemn(self, names: Sequence[str], *, idle_seconds: float) -> list[str]:
        return await self._write(
            lambda db: garbage.condemn(db, names, now=self._now(), idle_seconds=idle_seconds)
        )

    @override
    async def list_retained(self, *, limit: int) -> list[str]:
        return await self._read(lambda db: aging.list_retained(db, now=self._now(), limit=limit))

    @override
    async def forget_retained(self, names: Sequence[str]) -> None:
        await self._write(lambda db: aging.forget_retained(db, names))

    @override
    async def list_fragmented(self, *, parts_min: int, limit: int) -> list[Fragmented]:
        return await self._read(
            lambda db: compaction.list_fragmented(
                db, parts_min=parts_min, limit=limit, now=self._now()
            )
        )

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
        swap = compaction.Swap(
            upload_id=upload_id, file_id=file_id, old=old, new=new, keep_seconds=keep_seconds
        )
        return await self._write(lambda db: compaction.swap_parts(db, swap, self._now()))

    @override
    async def list_references(self, *, after: str, limit: int) -> list[Reference]:
        return await self._read(lambda db: drift.list_references(db, after=after, limit=limit))

    @override
    async def list_batches_of(self, blob: str) -> list[Batch]:
        return await self._read(lambda db: drift.list_batches_of(db, blob))

    @override
    async def get_shards(self, batch_id: str) -> list[Shard]:
        return await self._read(lambda db: drift.get_shards(db, batch_id))

    @override
    async def repair(self, repair: Repair) -> bool:
        return await self._write(lambda db: drift.repair(db, repair))
