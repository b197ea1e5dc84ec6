"""Whose work comes next: the order of claims (PROTOCOL 4)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Claimable shards of one model of one batch, and how much of the batch is being run now.

    `claimed_lines` counts the undone lines of the batch's live claims over all processors.
    """

    batch_id: str
    tenant: str
    model: str
    created_at: float
    expires_at: float
    shards: int
    claimed_lines: int
    ending: bool


def in_order(offers: Iterable[Offer], weights: Mapping[str, float] | None = None) -> list[Offer]:
    """Sort offers: what only has to be ended first, then by tenant share, batch share and age.

    A share is the lines being run now, divided by the tenant's weight (1 where none is given).
    """
    listed = list(offers)
    by_tenant: dict[str, int] = {}
    for batch in {offer.batch_id: offer for offer in listed}.values():
        by_tenant[batch.tenant] = by_tenant.get(batch.tenant, 0) + batch.claimed_lines
    weight = weights or {}

    def place(offer: Offer) -> tuple[bool, float, int, float, str, str]:
        share = by_tenant[offer.tenant] / weight.get(offer.tenant, 1.0)
        return (
            not offer.ending,
            share,
            offer.claimed_lines,
            offer.created_at,
            offer.batch_id,
            offer.model,
        )

    return sorted(listed, key=place)
