"""Writers of results in the SQLite ledger. Each function runs inside one transaction."""

import apsw
import msgspec

from tidegate.stores import sql
from tidegate.stores.sqlite.rows import Value, select_one, write

SQL = sql.load("tidegate.stores.sqlite", "writers.sql")


class WriterRow(msgspec.Struct, frozen=True, array_like=True):
    """For which batch and processor a writer writes, and whether it may."""

    batch_id: str
    owner: str
    fenced: int


def begin_writer(
    connection: apsw.Connection,
    writer: str,
    *,
    batch_id: str,
    owner: str,
    at: float,
    fenced: bool = False,
) -> None:
    """Record a writer, once, where its batch exists."""
    values: dict[str, Value] = {
        "id": writer,
        "batch_id": batch_id,
        "owner": owner,
        "at": at,
        "fenced": fenced,
    }
    write(connection, SQL["begin_writer"], values)


def get_writer(connection: apsw.Connection, writer: str) -> WriterRow | None:
    """Return a writer's row; None where it was never begun, or went with its batch."""
    return select_one(connection, SQL["get_writer"], {"id": writer}, WriterRow)


def may_write(connection: apsw.Connection, writer: str, batch_id: str) -> bool:
    """Say whether results of this batch under this name may be committed."""
    row = get_writer(connection, writer)
    return row is not None and row.batch_id == batch_id and not row.fenced


def fence_writer(connection: apsw.Connection, writer: str) -> None:
    """End for good what a writer may commit."""
    changed = write(connection, SQL["fence_writer"], {"id": writer})
    assert changed == 1, writer
