"""Shares: whose work comes next (PROTOCOL 4), and who may use how much of a common limit."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Claimable shards of one model of one batch, and how much all processors are running now.

    `claimed_lines` counts the undone lines of the batch's live claims, `tenant_lines` those of all
    its tenant's batches: also of the ones that have no shard to offer, being claimed to the last.
    """

    batch_id: str
    tenant: str
    model: str
    created_at: float
    expires_at: float
    shards: int
    claimed_lines: int
    tenant_lines: int
    ending: bool


def in_order(offers: Iterable[Offer], weights: Mapping[str, float] | None = None) -> list[Offer]:
    """Sort offers: what only has to be ended first, then by tenant share, batch share and age.

    A share is the lines being run now, divided by the tenant's weight (1 if none is given).
    """
    weight = weights or {}

    def place(offer: Offer) -> tuple[bool, float, int, float, str, str]:
        share = offer.tenant_lines / weight.get(offer.tenant, 1.0)
        return (
            not offer.ending,
            share,
            offer.claimed_lines,
            offer.created_at,
            offer.batch_id,
            offer.model,
        )

    return sorted(offers, key=place)


def part_of(limit: int, *, rank: int, count: int) -> int:
    """Return how much of a limit belongs to number `rank` (from 0) of `count` that share it.

    The parts sum to the limit exactly, and no two differ by more than one; some are 0 if there
    is not enough for all.
    """
    assert limit >= 0, limit
    assert 0 <= rank < count, (rank, count)
    return limit // count + (rank < limit % count)
