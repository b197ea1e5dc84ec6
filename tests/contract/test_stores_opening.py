"""Opening a SQLite ledger: its schema and migrations, and paths that can't be opened."""

import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import msgspec
import pytest

from tidegate.domain.errors import SettingsInvalid, StorageBroken, StorageFull, StoreUnavailable
from tidegate.stores.lanes import ThreadExecutor
from tidegate.stores.sqlite import SqliteStore, claims
from tidegate.stores.sqlite.connection import MIGRATIONS, migrate, translated
from tidegate.stores.sqlite.rows import BatchRow, FileRow
from tidegate.testing.contract.stores import (
    START,
    TENANT,
    ManualClock,
    a_batch,
    a_commit,
    claim_finalizing,
    claim_shard,
    planned,
    result,
    run_whole,
)
from tidegate.testing.inline_lanes import InlineExecutor


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(path, ManualClock(), InlineExecutor(), busy_seconds=1) as store:
        yield store


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[apsw.Connection]:
    """A bare connection to a fresh ledger."""
    path = tmp_path / "ledger.sqlite"
    async with opened(path):
        connection = apsw.Connection(str(path))
        yield connection
        connection.close()


def version(connection: apsw.Connection) -> object:
    return connection.execute("PRAGMA user_version").fetchall()[0][0]


def columns(connection: apsw.Connection, table: str) -> list[object]:
    rows = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
    return [row[0] for row in rows]


async def test_a_ledger_is_found_again_as_it_was_left(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.sqlite") as store:
        batch = await store.create_batch(a_batch())
    async with opened(tmp_path / "ledger.sqlite") as store:
        assert await store.get_batch(TENANT, batch.id) == batch


async def test_an_open_ledger_is_in_wal_mode_with_the_newest_schema(
    ledger: apsw.Connection,
) -> None:
    assert ledger.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    assert version(ledger) == len(MIGRATIONS)


@pytest.mark.parametrize(("table", "row"), [("batch", BatchRow), ("file", FileRow)])
async def test_rows_are_read_in_the_order_of_their_columns(
    table: str, row: type[msgspec.Struct], ledger: apsw.Connection
) -> None:
    assert columns(ledger, table) == list(row.__struct_fields__)


async def test_every_table_is_strict_and_knows_its_tenant(ledger: apsw.Connection) -> None:
    tables = ledger.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'")
    for name, strict in tables.fetchall():
        assert isinstance(name, str)
        if name.startswith("sqlite_"):
            continue
        assert strict == 1, name
        assert name in {"pulse", "living"} or "tenant" in columns(ledger, name), name


PLANS = {
    "claimable_shards": ("unit", "USING COVERING INDEX unit_shard"),
    "open_models": ("unit", "USING COVERING INDEX unit_shard"),
    "held_lines": ("unit", "USING INDEX unit_held"),
    "next_tenant": ("batch", "USING INDEX batch_open "),
    "open_batches": ("batch", "USING INDEX batch_open "),
    "ending_batches": ("batch", "USING INDEX batch_"),
}


@pytest.mark.parametrize("statement", PLANS)
async def test_what_a_poll_asks_is_answered_from_an_index_in_order(
    statement: str, ledger: apsw.Connection
) -> None:
    table, index = PLANS[statement]
    text = {**claims.SQL, **claims.SQL}[statement]
    plan = ledger.execute(
        "EXPLAIN QUERY PLAN " + text, dict.fromkeys(re.findall(r":(\w+)", text), 0)
    )
    steps = [f"{step[3]} " for step in plan.fetchall()]
    on_table = [step for step in steps if f" {table} " in step]
    assert on_table
    assert all(index in step for step in on_table), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps


SETTLED = {
    *("id", "tenant", "endpoint", "input_file_id", "completion_window", "created_at"),
    *("expires_at", "metadata", "output_expires_seconds", "idempotency_key", "request_digest"),
    *("problems", "models", "plan_blob", "output_file_id", "error_file_id", "holds_input"),
}


async def test_what_is_settled_when_a_batch_is_planned_is_not_written_again(
    tmp_path: Path, ledger: apsw.Connection
) -> None:
    guard = f"BEFORE UPDATE OF {', '.join(sorted(SETTLED))} ON batch"
    async with opened(tmp_path / "ledger.sqlite") as store:
        await planned(store, shards=[("m", 1), ("m", 1)])
        ledger.execute(f"CREATE TRIGGER guard {guard} BEGIN SELECT raise(ABORT, 'rewritten'); END")
        with pytest.raises(apsw.ConstraintError, match="rewritten"):
            ledger.execute("UPDATE batch SET models = models")
        claimed = await claim_shard(store)
        await store.commit(a_commit(result(claimed, [0])))
        await store.note_waiting("batch_1", "a reason")
        await store.cancel_batch(TENANT, "batch_1", at=START)
        await run_whole(store)
        ended = await store.finish_batch((await claim_finalizing(store)).claim, at=START)
        assert ended == await store.get_batch(TENANT, "batch_1")
        assert (ended.models, ended.counts.completed) == (("m",), 2)


async def test_a_newer_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    async with opened(path):
        pass
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SettingsInvalid, match="schema 99"):
        async with opened(path):
            pass
    assert version(connection) == 99
    connection.close()


def test_migrations_run_once_each_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    connection = apsw.Connection(str(path))
    first = "CREATE TABLE one (a); INSERT INTO one VALUES (1); PRAGMA user_version = 1;"
    second = "INSERT INTO one VALUES (2); PRAGMA user_version = 2;"
    migrate(connection, path, [first])
    assert version(connection) == 1
    for _ in range(2):
        migrate(connection, path, [first, second])
        assert version(connection) == 2
        assert connection.execute("SELECT a FROM one").fetchall() == [(1,), (2,)]
    connection.close()


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    connection = apsw.Connection(str(path))
    first = "CREATE TABLE one (a); PRAGMA user_version = 1;"
    broken = "CREATE TABLE two (a); INSERT INTO nowhere VALUES (1); PRAGMA user_version = 2;"
    with pytest.raises(apsw.SQLError):
        migrate(connection, path, [first, broken])
    assert version(connection) == 0
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchall() == [(0,)]
    migrate(connection, path, [first])
    assert version(connection) == 1
    connection.close()


async def test_a_missing_directory_is_unavailable_and_leaves_no_thread(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "no" / "ledger.sqlite", ManualClock(), ThreadExecutor())
    with pytest.raises(StoreUnavailable, match="directory exists"):
        await store.__aenter__()
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"ledger-writer", "ledger-reader"}


async def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, this is no database. " * 50, encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(StorageBroken, match="no SQLite database"):
        async with opened(path):
            pass
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("error", "committing", "kind"),
    [
        (apsw.FullError(), False, StorageFull),
        (apsw.FullError(), True, StorageFull),
        (apsw.IOError(), False, StoreUnavailable),
        (apsw.IOError(), True, StorageBroken),
        (apsw.CorruptError(), False, StorageBroken),
        (apsw.NotADBError(), False, StorageBroken),
        (apsw.BusyError(), True, StoreUnavailable),
        (apsw.LockedError(), False, StoreUnavailable),
        (apsw.CantOpenError(), False, StoreUnavailable),
        (apsw.ReadOnlyError(), False, StoreUnavailable),
        (apsw.SQLError(), True, StoreUnavailable),
        (apsw.NoMemError(), False, StoreUnavailable),
        (ValueError(), True, ValueError),
    ],
)
def test_errors_of_sqlite_have_our_names(
    error: Exception,
    committing: bool,  # noqa: FBT001 -- a table's column
    kind: type[Exception],
    tmp_path: Path,
) -> None:
    ours = translated(error, tmp_path, committing=committing)
    assert type(ours) is kind
    assert ours is error or ours.__cause__ is error


async def test_a_file_that_another_keeps_to_itself_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    other = apsw.Connection(str(path))
    other.execute("BEGIN EXCLUSIVE")
    store = SqliteStore(path, ManualClock(), InlineExecutor(), busy_seconds=0.1)
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.__aenter__()
    other.execute("ROLLBACK")
    async with opened(path) as store:
        await store.check()
    other.close()


async def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as store:
        await store.create_batch(a_batch())
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(StorageBroken, match="backup"):
        async with opened(path):
            pass


def modes_in(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


async def test_a_ledger_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    async with opened(path) as store:
        await store.create_batch(a_batch())
        modes = modes_in(tmp_path)
        assert len(modes) == 3, "the ledger, its log and its shared memory"
        assert set(modes.values()) == {0o600}
