"""A ledger of an earlier schema is brought up to date with all that is in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from tidegate.domain.file import Part
from tidegate.domain.ledger.values import Purged
from tidegate.domain.shard import Verdict
from tidegate.stores.sqlite import SqliteStore
from tidegate.stores.sqlite.connection import MIGRATIONS
from tidegate.testing.contract.stores import (
    LEASE,
    START,
    TENANT,
    ManualClock,
    a_batch,
    a_commit,
    claim_finalizing,
    claim_planning,
    claim_shards,
    list_offers,
    planned,
    result,
    upload,
)
from tidegate.testing.contract.stores_writers import a_blob
from tidegate.testing.inline_lanes import InlineExecutor

OUTPUT = "file-batch_1-output"


@asynccontextmanager
async def opened(path: Path, clock: ManualClock) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(path, clock, InlineExecutor()) as store:
        yield store


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def new(tmp_path: Path, clock: ManualClock) -> Path:
    """A ledger in the middle of life, by this version."""
    path = tmp_path / "new.sqlite"
    async with opened(path, clock) as store:
        await upload(store)
        await upload(store, "file-x")
        await store.delete_file(TENANT, "file-x")
        await store.begin_upload("pending", tenant=TENANT, blob="uploads/pending", at=START)
        await planned(store, shards=[("m", 2), ("m", 3)])
        first, _ = await claim_shards(store, "anna")
        part = Part(blob=a_blob(writer="anna"), offset=0, length=30)
        commit = a_commit(result(first, [0, 1], output=part))
        assert await store.commit(commit) == [Verdict.ACCEPTED]
        await store.create_batch(a_batch("batch_2", idempotency_key="key"))
        await claim_planning(store)
        await store.create_batch(a_batch("batch_3"))
        await store.cancel_batch(TENANT, "batch_3", at=START)
        await store.end_unplanned((await claim_planning(store)).claim, problems=[], at=START)
    return path


@pytest.fixture
def old(new: Path, tmp_path: Path) -> Path:
    """The same ledger as version 1 would have left it: its script alone, and the rows it knew."""
    path = tmp_path / "old.sqlite"
    connection = apsw.Connection(str(path))
    connection.execute(MIGRATIONS[0]).fetchall()
    connection.execute("ATTACH ? AS new", (str(new),))
    tables = connection.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'")
    for (table,) in tables.fetchall():
        rows = connection.execute("SELECT name FROM pragma_table_info(?, 'main')", (table,))
        columns = ", ".join(str(row[0]) for row in rows.fetchall())
        connection.execute(
            f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}"
        )
    assert connection.execute("PRAGMA main.user_version").fetchall() == [(1,)]
    connection.close()
    return path


def schema(path: Path) -> set[tuple[object, ...]]:
    connection = apsw.Connection(str(path))
    found = connection.execute("SELECT type, name, tbl_name FROM sqlite_schema").fetchall()
    columns = [
        ("column", table, *row)
        for kind, table, _ in found
        if kind == "table"
        for row in connection.execute(
            'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?)', (table,)
        ).fetchall()
    ]
    connection.close()
    return {*found, *columns}


async def test_all_that_was_there_is_there(new: Path, old: Path, clock: ManualClock) -> None:
    async with opened(new, clock) as store, opened(old, clock) as migrated:
        for batch_id in ("batch_1", "batch_2", "batch_3"):
            expected = await store.get_batch(TENANT, batch_id)
            assert await migrated.get_batch(TENANT, batch_id) == expected
            assert await migrated.get_shards(batch_id) == await store.get_shards(batch_id)
            assert await migrated.get_input(batch_id) == await store.get_input(batch_id)
        assert await migrated.get_parts(TENANT, OUTPUT) == await store.get_parts(TENANT, OUTPUT)
        assert await list_offers(migrated) == await list_offers(store)
        assert await migrated.list_unused_files(limit=9) == await store.list_unused_files(limit=9)
    assert schema(old) == schema(new)


async def test_what_was_at_work_goes_on(old: Path, clock: ManualClock) -> None:
    async with opened(old, clock) as store:
        late = a_blob("late", writer="anna")
        assert await store.fence_and_list_deletable([late], idle_seconds=1) == [], "its owner lives"
        clock.turn(LEASE)
        assert await store.fence_and_list_deletable([late], idle_seconds=1) == [late]
        (taken,) = await claim_shards(store, "bert")
        assert (taken.shard.crashes, taken.shard.deaths, taken.shard.suspect) == (1, {}, None)
        await store.begin_writer("writer_b", batch_id="batch_1", owner="bert", at=START)
        commit = a_commit(result(taken, [0, 1, 2]), segment="segment-2", writer="writer_b")
        assert await store.commit(commit) == [Verdict.ACCEPTED]
        ended = await store.finish_batch((await claim_finalizing(store)).claim, at=START)
        assert (ended.counts.total, ended.counts.completed) == (5, 5)


async def test_what_has_had_its_time_goes(old: Path, clock: ManualClock) -> None:
    async with opened(old, clock) as store:
        assert await store.release_files(["file-x", "file-in"], keep_seconds=0) == ["file-x"]
        assert await store.purge(age_seconds=0, limit=9) == Purged(files=1, uploads=1)
        (over,) = await store.list_old_batches(ended_seconds=0, limit=9)
        assert over.batch_id == "batch_3"
        assert await store.drop_batches(["batch_1", "batch_3"]) == 1
        pending = "uploads/pending"
        assert await store.fence_and_list_deletable([pending], idle_seconds=0) == [pending]
