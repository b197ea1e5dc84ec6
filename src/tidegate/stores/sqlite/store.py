"""The SQLite ledger as a `Store`: which lane each verb takes, and what time it is."""

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
from tidegate.domain.shard import Verdict
from tidegate.runtime.clock import Clock
from tidegate.stores import ledger
from tidegate.stores.base import (
    ClaimedBatch,
    ClaimedShards,
    Commit,
    Page,
    Plan,
    Poll,
    States,
    Store,
    Want,
)
from tidegate.stores.executor import Executor, Lane
from tidegate.stores.health import StoreHealth
from tidegate.stores.sqlite import batches, claims, connection, files, offers, results, units
from tidegate.stores.sqlite.health import look
from tidegate.stores.sqlite.rows import write
from tidegate.stores.sqlite.upkeep import SqliteUpkeep

T = TypeVar("T")


class SqliteStore(SqliteUpkeep, Store):
    """A ledger in the file at `path`; its directory must exist.

    Writing calls go through one lane in groups, each group one synced transaction; reading calls
    go through another, and see every write that was acknowledged before. A call waits at most
    `busy_seconds` for other processes' writes. A failed flush ends all writing for good: every
    later write raises `StorageBroken` until the process starts anew. `vfs` names SQLite's file
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
        await self._write(lambda db: write(db, connection.SQL["beat"], {"at": self._clock.now()}))
        await self._read(lambda db: write(db, connection.SQL["read_pulse"], {}))

    @override
    async def health(self) -> StoreHealth:
        # On a connection of its own, since the ledger need not be open.
        return await asyncio.to_thread(look, self._path, now=self._clock.now())

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
        return await self._read(
            lambda db: files.get_visible(db, tenant, file_id, self._clock.now())
        )

    @override
    async def get_parts(self, tenant: str, file_id: str) -> tuple[File, tuple[Part, ...]]:
        return await self._read(
            lambda db: (
                files.get_visible(db, tenant, file_id, self._clock.now()),
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
        return await self._read(lambda db: files.list_files(db, tenant, listing, self._clock.now()))

    @override
    async def delete_file(self, tenant: str, file_id: str) -> None:
        await self._write(lambda db: files.delete_file(db, tenant, file_id, self._clock.now()))

    @override
    async def create_batch(self, batch: Batch) -> Batch:
        return await self._write(lambda db: batches.create_batch(db, batch, self._clock.now()))

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
    async def claim_planning(
        self, owner: str, *, lease_seconds: float, ending_only: bool = False
    ) -> ClaimedBatch | None:
        return await self._claim_oldest(
            Kind.PLANNING, owner, lease_seconds, ending_only=ending_only
        )

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
        wanted = offers.Wanted(
            limit=offers_max, skip_models=frozenset(skip_models), ending_only=ending_only
        )
        return await self._read(
            lambda db: offers.poll(db, owner, batch_ids, wanted, now=self._clock.now())
        )

    @override
    async def claim_shards(
        self, owner: str, wants: Sequence[Want], *, lease_seconds: float
    ) -> list[ClaimedShards]:
        return await self._write(
            lambda db: claims.claim_shards(
                db, owner, wants, now=self._clock.now(), lease_seconds=lease_seconds
            )
        )

    @override
    async def claim_finalizing(self, owner: str, *, lease_seconds: float) -> ClaimedBatch | None:
        return await self._claim_oldest(Kind.FINALIZING, owner, lease_seconds)

    @override
    async def renew(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Unit]:
        return await self._write(
            lambda db: units.renew(db, claims, self._clock.now() + lease_seconds)
        )

    @override
    async def hand_back(self, claims: Sequence[Claim], *, wait_seconds: float = 0.0) -> None:
        await self._write(
            lambda db: units.hand_back(
                db, claims, ledger.after_wait(self._clock.now(), wait_seconds)
            )
        )

    @override
    async def plan_batch(self, claim: Claim, plan: Plan, *, at: float) -> Batch:
        return await self._write(lambda db: results.plan_batch(db, claim, plan, at))

    @override
    async def end_unplanned(self, claim: Claim, *, problems: Sequence[Problem], at: float) -> Batch:
        return await self._write(lambda db: results.end_unplanned(db, claim, problems, at))

    @override
    async def commit(self, commit: Commit) -> list[Verdict]:
        return await self._write(lambda db: results.commit(db, commit))

    @override
    async def finish_batch(self, claim: Claim, *, at: float) -> Batch:
        return await self._write(lambda db: results.finish_batch(db, claim, at))

    async def _claim_oldest(
        self, kind: Kind, owner: str, lease_seconds: float, *, ending_only: bool = False
    ) -> ClaimedBatch | None:
        return await self._write(
            lambda db: claims.claim_oldest(
                db,
                kind,
                owner,
                now=self._clock.now(),
                lease_seconds=lease_seconds,
                ending_only=ending_only,
            )
        )

    @override
    async def _write(self, work: Callable[[apsw.Connection], T]) -> T:
        return await self._opened().write(work)

    @override
    async def _read(self, work: Callable[[apsw.Connection], T]) -> T:
        return await self._opened().read(work)

    @override
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
        """Connect: the writer first, for it makes and migrates the file."""
        await self.write(lambda _: None)
        await self.read(lambda _: None)

    async def close(self) -> None:
        """Finish what was asked for and disconnect, the writer last: it folds the log back."""
        try:
            await self._read_lane.close()
        finally:
            await self._write_lane.close()

    async def write(self, work: Callable[[apsw.Connection], T]) -> T:
        return await self._write_lane.call(lambda: work(self._writer.connection))

    async def read(self, work: Callable[[apsw.Connection], T]) -> T:
        return await self._read_lane.call(lambda: work(self._reader.connection))
