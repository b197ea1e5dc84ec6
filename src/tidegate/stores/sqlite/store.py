"""The SQLite ledger as a `Store`: the lane and the time of each verb."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import apsw
from typing_extensions import override

from tidegate.domain.batch import Batch, Problem
from tidegate.domain.claim import Claim, Kind, Unit
from tidegate.domain.errors import StoreUnavailable
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.ledger import claims as claim_rules
from tidegate.domain.ledger.values import (
    ClaimedBatch,
    ClaimedShards,
    Commit,
    Fragmented,
    OldBatch,
    Page,
    Plan,
    Poll,
    Purged,
    Reference,
    Repair,
    States,
    UnusedFile,
    Want,
)
from tidegate.domain.shard import Shard, Verdict
from tidegate.runtime.clock import Clock
from tidegate.stores.base import Store
from tidegate.stores.health import StoreHealth
from tidegate.stores.lanes import Executor, Lane
from tidegate.stores.sqlite import (
    batches,
    claims,
    commits,
    connection,
    files,
    garbage,
    members,
    quarantine,
    repair as repair_verbs,
    retention,
    units,
)
from tidegate.stores.sqlite.health import look
from tidegate.stores.sqlite.rows import write

T = TypeVar("T")


class SqliteStore(Store):
    """A ledger in the file at `path`; its directory must exist.

    Writing calls go through one lane in groups, each group one synced transaction; reading calls
    go through another, and see every write that was acknowledged before. A call waits at most
    `busy_seconds` for other processes' writes. A failed flush ends all writing permanently: every
    later write raises `StorageBroken` until the process restarts. `vfs` names SQLite's file
    layer, by default the system's.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        executor: Executor,
        *,
        busy_seconds: float = connection.BUSY_SECONDS,
        vfs: str | None = None,
    ) -> None:
        self._path = path
        self._clock = clock
        self._executor = executor
        self._busy_seconds = busy_seconds
        self._vfs = vfs
        self._lanes: _Lanes | None = None

    @property
    @override
    def durable(self) -> bool:
        return True

    @override
    async def __aenter__(self) -> Self:
        assert self._lanes is None, "opened twice"
        lanes = self._lanes = _Lanes(
            connection.Writer(self._path, busy_seconds=self._busy_seconds, vfs=self._vfs),
            connection.Reader(self._path, busy_seconds=self._busy_seconds, vfs=self._vfs),
            self._executor,
        )
        try:
            await lanes.open()
        except BaseException:
            await lanes.close()
            raise
        return self

    @override
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lanes is not None:
            await self._lanes.close()

    @override
    async def check(self) -> None:
        await self._write(lambda db: write(db, connection.SQL["write_pulse"], {"at": self._now()}))
        await self._read(lambda db: write(db, connection.SQL["read_pulse"], {}))

    @override
    async def health(self) -> StoreHealth:
        # On a connection of its own, since the ledger need not be open.
        return await asyncio.to_thread(look, self._path, now=self._now())

    @override
    async def begin_upload(self, upload_id: str, *, tenant: str, blob: str, at: float) -> None:
        await self._write(
            lambda db: files.begin_upload(db, upload_id, tenant=tenant, blob=blob, at=at)
        )

    @override
    async def finish_upload(self, upload_id: str, file: File, parts: Sequence[Part]) -> File:
        return await self._write(lambda db: files.finish_upload(db, upload_id, file, parts))

    @override
    async def abandon_upload(self, upload_id: str) -> bool:
        return await self._write(lambda db: files.abandon_upload(db, upload_id))

    @override
    async def get_file(self, tenant: str, file_id: str) -> File:
        return await self._read(lambda db: files.get_visible(db, tenant, file_id, self._now()))

    @override
    async def get_parts(self, tenant: str, file_id: str) -> tuple[File, tuple[Part, ...]]:
        return await self._read(
            lambda db: (
                files.get_visible(db, tenant, file_id, self._now()),
                files.get_parts(db, file_id),
            )
        )

    @override
    async def list_files(
        self,
        tenant: str,
        *,
        after: str | None,
        limit: int,
        ascending: bool,
        purpose: Purpose | None,
    ) -> Page[File]:
        listing = files.Listing(after=after, limit=limit, ascending=ascending, purpose=purpose)
        return await self._read(lambda db: files.list_files(db, tenant, listing, self._now()))

    @override
    async def delete_file(self, tenant: str, file_id: str) -> None:
        await self._write(lambda db: files.delete_file(db, tenant, file_id, self._now()))

    @override
    async def list_fragmented(self, *, parts_min: int, limit: int) -> list[Fragmented]:
        return await self._read(
            lambda db: files.list_fragmented(db, parts_min=parts_min, limit=limit, now=self._now())
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
        swap = files.Swap(
            upload_id=upload_id, file_id=file_id, old=old, new=new, keep_seconds=keep_seconds
        )
        return await self._write(lambda db: files.swap_parts(db, swap, self._now()))

    @override
    async def create_batch(self, batch: Batch) -> Batch:
        return await self._write(lambda db: batches.create_batch(db, batch, self._now()))

    @override
    async def get_batch(self, tenant: str, batch_id: str) -> Batch:
        return await self._read(lambda db: batches.get_batch(db, tenant, batch_id))

    @override
    async def list_batches(self, tenant: str, *, after: str | None, limit: int) -> Page[Batch]:
        return await self._read(
            lambda db: batches.list_batches(db, tenant, after=after, limit=limit)
        )

    @override
    async def cancel_batch(self, tenant: str, batch_id: str, *, at: float) -> Batch:
        return await self._write(lambda db: batches.cancel_batch(db, tenant, batch_id, at))

    @override
    async def get_states(self, batch_ids: Sequence[str]) -> States:
        return await self._read(lambda db: batches.get_states(db, batch_ids, now=self._now()))

    @override
    async def note_waiting(self, batch_id: str, reason: str | None) -> None:
        await self._write(lambda db: batches.note_waiting(db, batch_id, reason))

    @override
    async def get_input(self, batch_id: str) -> tuple[Part, ...] | None:
        return await self._read(lambda db: batches.get_input(db, batch_id))

    @override
    async def poll(
        self,
        owner: str,
        *,
        offers_max: int,
        batch_ids: Sequence[str] = (),
        skip_models: Collection[str] = (),
        ending_only: bool = False,
    ) -> Poll:
        wanted = claims.Wanted(
            limit=offers_max, skip_models=frozenset(skip_models), ending_only=ending_only
        )
        return await self._read(
            lambda db: claims.poll(db, owner, batch_ids, wanted, now=self._now())
        )

    @override
    async def claim_planning(
        self, owner: str, *, lease_seconds: float, ending_only: bool = False
    ) -> ClaimedBatch | None:
        return await self._claim_oldest(
            Kind.PLANNING, owner, lease_seconds, ending_only=ending_only
        )

    @override
    async def claim_shards(
        self, owner: str, wants: Sequence[Want], *, lease_seconds: float
    ) -> list[ClaimedShards]:
        return await self._write(
            lambda db: claims.claim_shards(
                db, owner, wants, now=self._now(), lease_seconds=lease_seconds
            )
        )

    @override
    async def claim_finalizing(self, owner: str, *, lease_seconds: float) -> ClaimedBatch | None:
        return await self._claim_oldest(Kind.FINALIZING, owner, lease_seconds)

    @override
    async def renew(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Unit]:
        return await self._write(lambda db: units.renew(db, claims, self._now() + lease_seconds))

    @override
    async def hand_back(self, claims: Sequence[Claim], *, wait_seconds: float = 0.0) -> None:
        await self._write(
            lambda db: units.hand_back(
                db, claims, claim_rules.after_wait(self._now(), wait_seconds)
            )
        )

    @override
    async def begin_writer(self, writer: str, *, batch_id: str, owner: str, at: float) -> None:
        await self._write(
            lambda db: commits.begin_writer(db, writer, batch_id=batch_id, owner=owner, at=at)
        )

    @override
    async def plan_batch(self, claim: Claim, plan: Plan, *, at: float) -> Batch:
        return await self._write(lambda db: commits.plan_batch(db, claim, plan, at))

    @override
    async def end_unplanned(self, claim: Claim, *, problems: Sequence[Problem], at: float) -> Batch:
        return await self._write(lambda db: commits.end_unplanned(db, claim, problems, at))

    @override
    async def commit(self, commit: Commit) -> list[Verdict]:
        return await self._write(lambda db: commits.commit(db, commit))

    @override
    async def finish_batch(self, claim: Claim, *, at: float) -> Batch:
        return await self._write(lambda db: commits.finish_batch(db, claim, at))

    @override
    async def renew_membership(self, owner: str, *, lease_seconds: float) -> None:
        await self._write(
            lambda db: members.renew_membership(
                db, owner, now=self._now(), lease_seconds=lease_seconds
            )
        )

    @override
    async def leave(self, owner: str) -> None:
        await self._write(lambda db: members.leave(db, owner))

    @override
    async def list_members(self) -> tuple[str, ...]:
        return await self._read(lambda db: members.list_members(db, self._now()))

    @override
    async def record_suspect(self, claim: Claim, index: int) -> None:
        await self._write(lambda db: quarantine.record_suspect(db, claim, index))

    @override
    async def record_sandbox_death(self, claim: Claim, index: int) -> int:
        return await self._write(lambda db: quarantine.record_sandbox_death(db, claim, index))

    @override
    async def list_unused_files(self, *, limit: int) -> list[UnusedFile]:
        return await self._read(
            lambda db: retention.list_unused_files(db, now=self._now(), limit=limit)
        )

    @override
    async def release_files(self, file_ids: Sequence[str], *, keep_seconds: float) -> list[str]:
        return await self._write(
            lambda db: retention.release_files(
                db, file_ids, now=self._now(), keep_seconds=keep_seconds
            )
        )

    @override
    async def list_ending(self, *, limit: int) -> list[Batch]:
        return await self._read(lambda db: retention.list_ending(db, now=self._now(), limit=limit))

    @override
    async def list_old_batches(self, *, ended_seconds: float, limit: int) -> list[OldBatch]:
        return await self._read(
            lambda db: retention.list_old_batches(
                db, ended_by=self._now() - ended_seconds, limit=limit
            )
        )

    @override
    async def drop_batches(self, batch_ids: Sequence[str]) -> int:
        return await self._write(lambda db: retention.drop_batches(db, batch_ids))

    @override
    async def purge(self, *, age_seconds: float, limit: int) -> Purged:
        return await self._write(
            lambda db: retention.purge(db, created_by=self._now() - age_seconds, limit=limit)
        )

    @override
    async def list_unreferenced(self, names: Sequence[str]) -> list[str]:
        return await self._read(lambda db: garbage.list_unreferenced(db, names, self._now()))

    @override
    async def fence_and_list_deletable(
        self, names: Sequence[str], *, idle_seconds: float
    ) -> list[str]:
        return await self._write(
            lambda db: garbage.fence_and_list_deletable(
                db, names, now=self._now(), idle_seconds=idle_seconds
            )
        )

    @override
    async def list_retained(self, *, limit: int) -> list[str]:
        return await self._read(
            lambda db: retention.list_retained(db, now=self._now(), limit=limit)
        )

    @override
    async def forget_retained(self, names: Sequence[str]) -> None:
        await self._write(lambda db: retention.forget_retained(db, names))

    @override
    async def list_references(self, *, after: str, limit: int) -> list[Reference]:
        return await self._read(
            lambda db: repair_verbs.list_references(db, after=after, limit=limit)
        )

    @override
    async def list_batches_of(self, blob: str) -> list[Batch]:
        return await self._read(lambda db: repair_verbs.list_batches_of(db, blob))

    @override
    async def get_shards(self, batch_id: str) -> list[Shard]:
        return await self._read(lambda db: repair_verbs.get_shards(db, batch_id))

    @override
    async def repair(self, repair: Repair) -> bool:
        return await self._write(lambda db: repair_verbs.repair(db, repair))

    async def _claim_oldest(
        self, kind: Kind, owner: str, lease_seconds: float, *, ending_only: bool = False
    ) -> ClaimedBatch | None:
        return await self._write(
            lambda db: claims.claim_oldest(
                db,
                kind,
                owner,
                now=self._now(),
                lease_seconds=lease_seconds,
                ending_only=ending_only,
            )
        )

    async def _write(self, work: Callable[[apsw.Connection], T]) -> T:
        return await self._opened().write(work)

    async def _read(self, work: Callable[[apsw.Connection], T]) -> T:
        return await self._opened().read(work)

    def _now(self) -> float:
        return self._clock.now()

    def _opened(self) -> "_Lanes":
        if self._lanes is None:
            raise StoreUnavailable("The ledger is not open; use it inside 'async with'.")
        return self._lanes


class _Lanes:
    """The two lanes of an open ledger and their workers."""

    def __init__(
        self, writer: connection.Writer, reader: connection.Reader, executor: Executor
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._write_lane: Lane = executor.open_lane("ledger-writer", self._writer)
        self._read_lane: Lane = executor.open_lane("ledger-reader", self._reader)

    async def open(self) -> None:
        """Connect: the writer first, because it makes and migrates the file."""
        await self.write(lambda _: None)
        await self.read(lambda _: None)

    async def close(self) -> None:
        """Finish pending work and disconnect, the writer last, because it checkpoints the log."""
        try:
            await self._read_lane.close()
        finally:
            await self._write_lane.close()

    async def write(self, work: Callable[[apsw.Connection], T]) -> T:
        return await self._write_lane.call(lambda: work(self._writer.connection))

    async def read(self, work: Callable[[apsw.Connection], T]) -> T:
        return await self._read_lane.call(lambda: work(self._reader.connection))
