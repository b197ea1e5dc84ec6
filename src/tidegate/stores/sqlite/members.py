"""Members, in the SQLite ledger: processors that are alive. One transaction each."""

import apsw
import msgspec

from tidegate.stores import sql
from tidegate.stores.sqlite.rows import select, write

SQL = sql.load("tidegate.stores.sqlite", "members.sql")


class _OwnerRow(msgspec.Struct, frozen=True, array_like=True):
    owner: str


def renew_membership(
    connection: apsw.Connection, owner: str, *, now: float, lease_seconds: float
) -> None:
    """Make a processor a member; remove members whose lease is over."""
    write(connection, SQL["forget_dead"], {"now": now})
    write(connection, SQL["renew_membership"], {"owner": owner, "expires_at": now + lease_seconds})


def leave(connection: apsw.Connection, owner: str) -> None:
    """End a membership."""
    write(connection, SQL["leave"], {"owner": owner})


def list_members(connection: apsw.Connection, now: float) -> tuple[str, ...]:
    """Return the members, sorted."""
    rows = select(connection, SQL["list_members"], {"now": now}, _OwnerRow)
    return tuple(row.owner for row in rows)
