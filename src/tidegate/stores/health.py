"""How a ledger stands, as its operator asks it: the answer of `Store.health`."""

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
    """What a back-end has to say about its own condition, and what its operator should do."""

    message: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHealth:
    """How a ledger stands.

    Attributes:
        engine: the back-end with its version, for people.
        durable: what is acknowledged survives the end of the process.
        exists: False if there is no ledger yet; the rest is empty then.
        schema: the version that the ledger has; 0 if it is none of ours.
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
