"""Which processors live, in the SQLite ledger. One transaction each."""

import apsw
import msgspec

from tidegate.stores import sql
from tidegate.stores.sqlite.rows import select, write

SQL = sql.load("tidegate.stores.sqlite", "living.sql")


class _OwnerRow(msgspec.Struct, frozen=True, array_like=True):
    owner: str


def beat(connection: apsw.Connection, owner: str, *, now: float, lease_seconds: float) -> None:
    """Count a processor among the living; forget those that never left."""
    write(connection, SQL["forget_dead"], {"now": now})
    write(connection, SQL["beat"], {"owner": owner, "expires_at": now + lease_seconds})


def leave(connection: apsw.Connection, owner: str) -> None:
    """Count a processor no more."""
    write(connection, SQL["leave"], {"owner": owner})


def get_living(connection: apsw.Connection, now: float) -> tuple[str, ...]:
    """Return the living processors, sorted."""
    rows = select(connection, SQL["get_living"], {"now": now}, _OwnerRow)
    return tuple(row.owner for row in rows)
