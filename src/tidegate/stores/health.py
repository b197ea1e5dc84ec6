"""What a look at a ledger from outside tells, without joining in its work."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The oldest batch that has not ended. Times are Unix seconds."""

    batch_id: str
    status: str
    created_at: float
    expires_at: float
    waiting_for: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerHealth:
    """How a ledger stands.

    `schema` is what the file has and `schema_known` what this program brings it to. `overdue`
    counts the batches whose window has closed and that have not ended. Where the schema is not one
    of ours, the rest is not read and stays empty.
    """

    engine: str
    journal: str
    schema: int
    schema_known: int
    processors: int = 0
    batches: Mapping[str, int]
    oldest: Waiting | None = None
    overdue: int = 0
