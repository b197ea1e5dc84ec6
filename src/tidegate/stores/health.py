"""The state of a ledger as its operator sees it: the result of `Store.health`."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class OldestBatch:
    """The oldest batch that has not ended. Times are Unix seconds."""

    batch_id: str
    status: str
    created_at: float
    expires_at: float
    waiting_for: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A remark of a back-end on its own condition, and advice to its operator."""

    message: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHealth:
    """The state of a ledger.

    Attributes:
        engine: the back-end with its version, for people.
        durable: what is acknowledged survives the end of the process.
        exists: False if there is no ledger yet; all else is empty then.
        schema: the version that the ledger has; 0 if it is not one of Tidegate.
        schema_known: the version to which this program migrates it. If `schema` is not between 1
            and this one, nothing more was read.
        members: processors that are alive.
        batches: how many there are of each status.
        overdue: batches whose window has closed and that have not ended.
    """

    engine: str
    durable: bool
    schema: int
    schema_known: int
    exists: bool = True
    members: int = 0
    batches: Mapping[str, int] = field(default_factory=dict)
    oldest: OldestBatch | None = None
    overdue: int = 0
    remarks: tuple[Remark, ...] = ()
