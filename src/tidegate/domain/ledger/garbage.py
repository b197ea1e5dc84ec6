"""Rules of garbage (PROTOCOL 18): when a writer can commit no more.

Every back-end asks these questions inside one transaction, so that all of them delete the same
bytes and fence the same writers.
"""

from collections.abc import Iterable
from enum import StrEnum

from tidegate.domain.ledger import claims as claim_rules
from tidegate.domain.ledger.claims import Hold


class Fate(StrEnum):
    """The decision on bytes that no row needs."""

    GOES = "goes"  # No row can ever point to them; delete them.
    FENCE = "fence"  # Fence their writer, then delete them.
    STAYS = "stays"  # Their writer may still commit them.


def plan_fate(planning: Hold | None, epoch: int, now: float) -> Fate:
    """Judge a plan that no batch names, written under this epoch of its planning."""
    if planning is None or planning.ended or planning.epoch > epoch:
        return Fate.GOES
    if planning.epoch < epoch or claim_rules.is_live(planning, now):
        # A later claim will have this epoch, and then use this name.
        return Fate.STAYS
    return Fate.FENCE


def writer_fate(claims: Iterable[Hold], now: float) -> Fate:
    """Judge results of a writer that is not fenced, by its owner's claims of a live batch."""
    return Fate.STAYS if any(claim_rules.is_live(hold, now) for hold in claims) else Fate.FENCE
