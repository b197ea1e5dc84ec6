"""The questions of a collector are answered from indexes, however much a SQLite ledger holds."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import LiteralString

import apsw
import pytest

from tidegate.stores.sqlite import claims, files, garbage, members, repair, retention
from tidegate.stores.sqlite.connection import MIGRATIONS, Reader, Writer, migrate

MODULES: list[Mapping[str, LiteralString]] = [
    module.SQL for module in (files, garbage, members, repair, retention)
]
SCANS = {
    "forget_dead": {"living"},  # There are few.
    "list_members": {"living"},
    "list_fragmented": {"f"},  # Every file is looked at once, and its parts are counted by index.
    "list_unused_files": {"f"},  # The name of what its two indexes found.
}


@pytest.fixture
def ledger(tmp_path: Path) -> apsw.Connection:
    path = tmp_path / "ledger.sqlite"
    connection = apsw.Connection(str(path))
    migrate(connection, path, MIGRATIONS)
    return connection


def scanned(ledger: apsw.Connection, statement: LiteralString) -> set[str]:
    """Return the tables of which every row is read without an index."""
    values = dict.fromkeys(re.findall(r":(\w+)", statement), "")
    plan = ledger.execute("EXPLAIN QUERY PLAN " + statement, values).fetchall()
    steps = [str(step[3]).split() for step in plan]
    whole = {step[1] for step in steps if step[0] == "SCAN" and "INDEX" not in step}
    return {name for name in whole if name != "CONSTANT" and not name.startswith("(")}


@pytest.mark.parametrize("statements", MODULES)
def test_no_question_reads_a_whole_table(
    statements: Mapping[str, LiteralString], ledger: apsw.Connection
) -> None:
    for name, statement in statements.items():
        assert scanned(ledger, statement) <= SCANS.get(name, set()), name


def test_a_question_that_reads_a_whole_table_is_found(ledger: apsw.Connection) -> None:
    assert scanned(ledger, "SELECT 1 FROM part WHERE offset = :offset") == {"part"}
    assert scanned(ledger, "SELECT 1 FROM part WHERE blob = :blob") == set()


@pytest.mark.parametrize("make", [Writer, Reader])
def test_a_statement_is_planned_once_for_all_parameters(
    make: type[Writer | Reader], tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite"
    Writer(path, busy_seconds=1.0, vfs=None).run([])  # It makes the tables.
    worker = make(path, busy_seconds=1.0, vfs=None)
    worker.run([])
    planned: list[int] = []

    def note(operation: int, *_names: str | None) -> int:
        planned.append(operation)
        return apsw.SQLITE_OK

    worker.connection.authorizer = note
    assert claims.get_shard(worker.connection, "batch_1", 0) is None
    assert planned != [], "nobody was asked"
    planned.clear()
    assert claims.get_shard(worker.connection, "batch_1", 1) is None
    assert planned == []
    worker.close()
