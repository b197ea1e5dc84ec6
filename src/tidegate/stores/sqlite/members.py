"""Members, in the SQLite ledger: processors that are alive. One transaction each."""

import apsw
import msgspec

from tidegate.stores import sql
from tidegate.stores.sqlite.rows import Moment, select, write

SQL = sql.load("tidegate.stores.sqlite", "members.sql")


class _OwnerRow(msgspec.Struct, frozen=True, array_like=True):
    owner: str


def renew_membership(moment: Moment, owner: str, *, lease_seconds: float) -> None:
    """Make a processor a member; remove members whose lease is over."""
    connection, now = moment
    write(connection, SQL["forget_dead"], {"now": now})
    write(connection, SQL["renew_membership"], {"owner": owner, "expires_at": now + lease_seconds})


def leave(connection: apsw.Connection, owner: str) -> None:
    """End a membership."""
    write(connection, SQL["leave"], {"owner": owner})


def list_members(moment: Moment) -> tuple[str, ...]:
    """Return the members, sorted."""
    rows = select(moment.connection, SQL["list_members"], {"now": moment.now}, _OwnerRow)
    return tuple(row.owner for row in rows)
