"""Units in the SQLite ledger: open, claim, renew and hand back."""

from collections.abc import Sequence

import apsw

from tidegate.domain.batch import Batch
from tidegate.domain.claim import Claim, Unit
from tidegate.domain.ledger import claims as claim_rules
from tidegate.domain.ledger.claims import Hold
from tidegate.stores import sql
from tidegate.stores.sqlite.rows import (
    HoldRow,
    Moment,
    Value,
    claim_values,
    select_one,
    unit_values,
    write,
)

SQL = sql.load("tidegate.stores.sqlite", "units.sql")


def open_unit(
    connection: apsw.Connection, batch: Batch, unit: Unit, *, model: str = "", undone: int = 0
) -> None:
    """Make a unit that can be claimed."""
    values: dict[str, Value] = {
        **unit_values(unit),
        "tenant": batch.tenant,
        "created_at": batch.created_at,
        "model": model,
        "undone": undone,
    }
    write(connection, SQL["open_unit"], values)


def get_hold(connection: apsw.Connection, unit: Unit) -> Hold | None:
    """Return the hold on a unit; None if no such unit exists."""
    row = select_one(connection, SQL["get_hold"], unit_values(unit), HoldRow)
    return None if row is None else row.hold()


def renew(moment: Moment, claims: Sequence[Claim], *, lease_seconds: float) -> list[Unit]:
    """Extend the claims that are kept; return the units of the others."""
    connection, now = moment
    expires_at = now + lease_seconds
    return [
        claim.unit
        for claim in claims
        if not write(connection, SQL["renew"], {**claim_values(claim), "expires_at": expires_at})
    ]


def hand_back(moment: Moment, claims: Sequence[Claim], *, wait_seconds: float = 0.0) -> None:
    """Give up the claims that are kept; others may take them after the wait."""
    connection, now = moment
    not_before = claim_rules.after_wait(now, wait_seconds)
    for claim in claims:
        values = {**claim_values(claim), "not_before": not_before}
        write(connection, SQL["hand_back"], values)


def take(connection: apsw.Connection, unit: Unit, owner: str, expires_at: float) -> Claim:
    """Claim a unit that is known to be claimable."""
    before = get_hold(connection, unit)
    assert before is not None, unit
    hold = claim_rules.taken(before, owner, expires_at)
    values: dict[str, Value] = {
        **unit_values(unit),
        "owner": owner,
        "epoch": hold.epoch,
        "expires_at": expires_at,
        "crashes": hold.crashes,
    }
    changed = write(connection, SQL["take"], values)
    assert changed == 1, unit
    return Claim(unit=unit, owner=owner, epoch=hold.epoch, expires_at=expires_at)
