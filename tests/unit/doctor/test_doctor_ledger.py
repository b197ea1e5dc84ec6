"""The doctor on the ledger: what it reads, what it thinks of it, and that it changes nothing."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from tidegate.config import Settings
from tidegate.config.settings import StoreSettings
from tidegate.doctor.finding import Finding, Level
from tidegate.doctor.ledger import examine_storage, judge_ledger
from tidegate.domain.batch import Batch, Status
from tidegate.domain.errors import StorageBroken
from tidegate.stores.health import OldestBatch, Remark, StoreHealth
from tidegate.stores.lanes import ThreadExecutor
from tidegate.stores.sqlite import SqliteStore
from tidegate.stores.sqlite.health import look
from tidegate.testing.contract.stores import ManualClock
from tidegate.testing.ids import SeededIds

NOW = 1_000.0
HEALTHY = StoreHealth(
    engine="SQLite 3",
    durable=True,
    schema=2,
    schema_known=2,
    members=1,
    batches={"completed": 4, "in_progress": 1},
)
OLDEST = OldestBatch(
    batch_id="batch_1", status="in_progress", created_at=0.0, expires_at=2_000.0, waiting_for=None
)


def batch(number: int, created_at: float) -> Batch:
    ids = SeededIds(random.Random(number))
    return Batch(
        id=ids.make("batch_"),
        tenant="default",
        endpoint="/v1/embeddings",
        input_file_id="file-none",
        completion_window="60s",
        status=Status.VALIDATING,
        created_at=created_at,
        expires_at=created_at + 60,
    )


def levels(health: StoreHealth) -> dict[str, Level]:
    return {finding.area: finding.level for finding in judge_ledger(health, NOW)}


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file but the index of the journal, which is SQLite's own scratch."""
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")
    }


async def test_a_ledger_in_use_and_one_at_rest_are_read_and_left_as_they_are(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    path = tmp_path / "ledger.db"
    store = SqliteStore(path, clock, ThreadExecutor())
    async with store:
        first = await store.create_batch(batch(1, clock.now()))
        await store.create_batch(batch(2, clock.now() + 1))
        await store.renew_membership("processor_1", lease_seconds=15.0)
        before = contents(tmp_path)
        in_use = look(path, now=clock.now() + 60)
        assert contents(tmp_path) == before
    before = contents(tmp_path)
    at_rest = look(path, now=clock.now() + 5)
    assert contents(tmp_path) == before
    assert "ledger.db" in before
    assert not (await asyncio.to_thread((tmp_path / "ledger.db-shm").exists))
    assert in_use.batches == at_rest.batches == {"validating": 2}
    assert in_use.oldest is not None
    assert in_use.oldest.batch_id == first.id
    assert (in_use.overdue, in_use.members) == (1, 0)
    assert (at_rest.overdue, at_rest.members) == (0, 1)
    assert (at_rest.schema, at_rest.remarks) == (at_rest.schema_known, ())


@pytest.mark.parametrize(
    ("change", "area", "level", "words"),
    [
        ({}, "ledger", Level.OK, "It opens"),
        ({"schema": 1}, "ledger", Level.OK, "brought to 2"),
        ({"schema": 3}, "ledger", Level.FAIL, "knows 2 at most"),
        ({"schema": 0}, "ledger", Level.FAIL, "somebody else's"),
        ({"members": 0}, "batches", Level.FAIL, "0 processors alive"),
        ({"members": 0, "batches": {}}, "batches", Level.OK, "none"),
        ({"oldest": OLDEST}, "oldest batch", Level.OK, "17 minutes"),
        ({"oldest": OLDEST, "overdue": 1}, "oldest batch", Level.WARN, "has closed"),
        (
            {"oldest": replace(OLDEST, waiting_for="no key.")},
            "oldest batch",
            Level.WARN,
            "It waits: no key.",
        ),
    ],
)
def test_what_a_ledger_says_is_judged(
    change: dict[str, object], area: str, level: Level, words: str
) -> None:
    found = [item for item in judge_ledger(changed(change), NOW) if item.area == area]
    assert [item.level for item in found] == [level]
    assert words in found[0].message


def changed(change: dict[str, object]) -> StoreHealth:
    members = {name: getattr(HEALTHY, name) for name in HEALTHY.__dataclass_fields__}
    return StoreHealth(**{**members, **change})


def test_remarks_of_a_back_end_are_shown() -> None:
    found = list(judge_ledger(changed({"remarks": (Remark(message="Odd.", advice="Act."),)}), NOW))
    assert ("Odd.", "Act.") in [(item.message, item.advice) for item in found]


def examined(settings: Settings) -> list[Finding]:
    async def collect() -> list[Finding]:
        return [item async for item in examine_storage(settings, ManualClock())]

    return [item for item in asyncio.run(collect()) if item.area == "ledger"]


def test_no_ledger_is_fine_and_none_is_made(tmp_path: Path) -> None:
    assert [item.level for item in examined(Settings(data_dir=tmp_path))] == [Level.OK]
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_in_memory_is_reported(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, store=StoreSettings(kind="memory"))
    assert [item.level for item in examined(settings)] == [Level.WARN]


def test_what_is_no_ledger_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a ledger" * 1_000)
    found = examined(Settings(data_dir=tmp_path))
    assert [item.level for item in found] == [Level.FAIL]
    assert "no SQLite database" in found[0].message
    with pytest.raises(StorageBroken):
        look(path, now=NOW)


def test_a_database_of_somebody_else_is_a_failure(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute("CREATE TABLE theirs (x)").fetchall()
    connection.close()
    assert examined(Settings(data_dir=tmp_path))[0].level is Level.FAIL
