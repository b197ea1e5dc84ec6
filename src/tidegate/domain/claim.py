"""The right to work on one unit, fenced by an epoch (PROTOCOL 1 to 3)."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What sort of work a unit is."""

    PLANNING = "planning"  # Validate the input and write the plan; number 0.
    SHARD = "shard"  # Run a slice of the plan; number is the shard's.
    FINALIZING = "finalizing"  # Finalizing; number 0. Exists once the last shard has ended.


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Unit:
    """One piece of work that exactly one holder may write for at a time."""

    batch_id: str
    kind: Kind
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A unit held by `owner` since `epoch`. Only a higher epoch ends the right to write.

    `expires_at` is a Unix time by the ledger's clock, one lease after the claim was taken; it
    permits others to take over, no more.
    """

    unit: Unit
    owner: str
    epoch: int
    expires_at: float
