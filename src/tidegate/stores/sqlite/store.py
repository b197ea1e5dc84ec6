"""The SQLite ledger as a `Store`: the lane and the time of each verb."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

import apsw
from typing_extensions import override

from tidegate.domain.errors import StoreUnavailable
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
from tidegate.stores.sqlite.rows import Moment, write

T = TypeVar("T")
P = ParamSpec("P")
Verb = Callable[Concatenate["SqliteStore", P], Coroutine[None, None, T]]


def _reading(work: Callable[Concatenate[apsw.Connection, P], T]) -> Verb[P, T]:
    """Return the verb of the port that runs `work` on the reading lane."""

    async def verb(store: "SqliteStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await store.read(lambda connection: work(connection, *args, **kwargs))

    return verb


def _writing(work: Callable[Concatenate[apsw.Connection, P], T]) -> Verb[P, T]:
    """Return the verb of the port that runs `work` in a transaction of the writing lane."""

    async def verb(store: "SqliteStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await store.write(lambda connection: work(connection, *args, **kwargs))

    return verb


def _reading_now(work: Callable[Concatenate[Moment, P], T]) -> Verb[P, T]:
    """Return such a verb; `work` also gets the ledger's time when it runs."""

    async def verb(store: "SqliteStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await store.read(lambda at: work(store.moment(at), *args, **kwargs))

    return verb


def _writing_now(work: Callable[Concatenate[Moment, P], T]) -> Verb[P, T]:
    """Return such a verb; `work` also gets the ledger's time when it runs."""

    async def verb(store: "SqliteStore", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await store.write(lambda at: work(store.moment(at), *args, **kwargs))

    return verb


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
    async def __aexit__(self, *_: object) -> None:
        if self._lanes is not None:
            await self._lanes.close()

    @override
    async def check(self) -> None:
        await self.write(lambda db: write(db, connection.SQL["write_pulse"], {"at": self._now()}))
        await self.read(lambda db: write(db, connection.SQL["read_pulse"], {}))

    @override
    async def health(self) -> StoreHealth:
        # On a connection of its own, since the ledger need not be open.
        return await asyncio.to_thread(look, self._path, now=self._now())

    begin_upload = _writing(files.begin_upload)
    finish_upload = _writing(files.finish_upload)
    abandon_upload = _writing(files.abandon_upload)
    get_file = _reading_now(files.get_file)
    get_parts = _reading_now(files.get_visible_parts)
    list_files = _reading_now(files.list_files)
    delete_file = _writing_now(files.delete_file)
    list_fragmented = _reading_now(files.list_fragmented)
    swap_parts = _writing_now(files.swap_parts)

    create_batch = _writing_now(batches.create_batch)
    get_batch = _reading(batches.get_batch)
    list_batches = _reading(batches.list_batches)
    cancel_batch = _writing(batches.cancel_batch)
    get_states = _reading_now(batches.get_states)
    note_waiting = _writing(batches.note_waiting)
    get_input = _reading(batches.get_input)

    poll = _reading_now(claims.poll)
    claim_planning = _writing_now(claims.claim_planning)
    claim_shards = _writing_now(claims.claim_shards)
    claim_finalizing = _writing_now(claims.claim_finalizing)
    renew = _writing_now(units.renew)
    hand_back = _writing_now(units.hand_back)

    begin_writer = _writing(commits.begin_writer)
    plan_batch = _writing(commits.plan_batch)
    end_unplanned = _writing(commits.end_unplanned)
    commit = _writing(commits.commit)
    finish_batch = _writing(commits.finish_batch)

    renew_membership = _writing_now(members.renew_membership)
    leave = _writing(members.leave)
    list_members = _reading_now(members.list_members)

    record_suspect = _writing(quarantine.record_suspect)
    record_sandbox_death = _writing(quarantine.record_sandbox_death)

    list_unused_files = _reading_now(retention.list_unused_files)
    release_files = _writing_now(retention.release_files)
    list_ending = _reading_now(retention.list_ending)
    list_old_batches = _reading_now(retention.list_old_batches)
    drop_batches = _writing(retention.drop_batches)
    purge = _writing_now(retention.purge)
    list_retained = _reading_now(retention.list_retained)
    forget_retained = _writing(retention.forget_retained)

    list_unreferenced = _reading_now(garbage.list_unreferenced)
    fence_and_list_deletable = _writing_now(garbage.fence_and_list_deletable)

    list_references = _reading(repair_verbs.list_references)
    list_batches_of = _reading(repair_verbs.list_batches_of)
    get_shards = _reading(repair_verbs.get_shards)
    repair = _writing(repair_verbs.repair)

    async def write(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run `work` in a transaction of the writing lane."""
        return await self._opened().write(work)

    async def read(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run `work` on the reading lane."""
        return await self._opened().read(work)

    def moment(self, connection: apsw.Connection) -> Moment:
        """Return a transaction with the ledger's time."""
        return Moment(connection, self._clock.now())

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
