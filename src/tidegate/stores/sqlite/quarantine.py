"""Suspect lines and sandbox deaths, in the SQLite ledger (PROTOCOL 20). One transaction each."""

from dataclasses import replace

import apsw
import msgspec

from tidegate.domain.claim import Claim, Kind
from tidegate.domain.ledger import quarantine as quarantine_rules
from tidegate.domain.shard import Shard
from tidegate.stores import sql
from tidegate.stores.sqlite import claims
from tidegate.stores.sqlite.rows import Value, write

SQL = sql.load("tidegate.stores.sqlite", "quarantine.sql")


def record_suspect(connection: apsw.Connection, claim: Claim, index: int) -> None:
    """Record the line that is about to run alone."""
    shard = _working(connection, claim, index)
    _save(connection, replace(shard, suspect=index))


def record_sandbox_death(connection: apsw.Connection, claim: Claim, index: int) -> int:
    """Record a sandbox death."""
    before = _working(connection, claim, index)
    shard = quarantine_rules.with_recorded_death(before, index)
    if shard is not before:
        _save(connection, shard)
    return shard.deaths.get(index, 0)


def _working(connection: apsw.Connection, claim: Claim, index: int) -> Shard:
    assert claim.unit.kind is Kind.SHARD, claim.unit
    shard = claims.get_shard(connection, claim.unit.batch_id, claim.unit.number)
    return quarantine_rules.check_shard_claim(shard, claim, index)


def _save(connection: apsw.Connection, shard: Shard) -> None:
    values: dict[str, Value] = {
        "batch_id": shard.batch_id,
        "number": shard.plan.number,
        "suspect": shard.suspect,
        "deaths": msgspec.json.encode(dict(shard.deaths)).decode(),
    }
    write(connection, SQL["save_suspicion"], values)
