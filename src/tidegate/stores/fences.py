"""When a writer can write no more, and what of a ledger's rows nobody needs: pure rules.

Every back-end asks these questions of its own rows inside one transaction, so that they all free
the same bytes and fence the same writers (PROTOCOL 18).
"""

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum

from tidegate.domain.claim import Claim
from tidegate.domain.file import File, Part
from tidegate.domain.shard import Shard
from tidegate.stores import ledger
from tidegate.stores.ledger import Hold


class Fate(StrEnum):
    """What is to be done with bytes that no row needs."""

    GOES = "goes"  # Nobody can make a row that points to them.
    FENCE = "fence"  # They go once their writer is fenced, which may be done now.
    STAYS = "stays"  # Their writer may still commit them.


def plan_fate(planning: Hold | None, epoch: int, now: float) -> Fate:
    """Judge a plan that no batch names, written under this epoch of its planning."""
    if planning is None or planning.ended or planning.epoch > epoch:
        return Fate.GOES
    if planning.epoch < epoch or ledger.is_live(planning, now):
        # A higher epoch is one that somebody will claim: to them the name belongs.
        return Fate.STAYS
    return Fate.FENCE


def writer_fate(claims: Iterable[Hold], now: float) -> Fate:
    """Judge results of a writer that is not fenced, by its owner's claims of a live batch."""
    return Fate.STAYS if any(ledger.is_live(hold, now) for hold in claims) else Fate.FENCE


def unused_because(file: File, now: float, *, deleted: bool) -> str | None:
    """Return why users can't see a file, or None where they can."""
    if deleted:
        return "deleted"
    return None if ledger.is_visible(file, now, deleted=False) else "expired"


def check_working(shard: Shard | None, claim: Claim, index: int) -> Shard:
    """Return the shard of a claim whose holder may still write.

    Raises:
        ClaimLost: the shard has a higher epoch, or has ended.
    """
    if shard is None or shard.ended or shard.epoch != claim.epoch:
        raise ledger.lost(claim)
    assert 0 <= index < shard.plan.lines, index
    return shard


def bereaved(shard: Shard, index: int) -> Shard:
    """Return the shard after a child process died of the line recorded last; a repeat adds none."""
    if shard.suspect != index:
        return shard
    deaths = {**shard.deaths, index: shard.deaths.get(index, 0) + 1}
    return replace(shard, deaths=deaths, suspect=None)


def check_swap(old: Iterable[Part], new: Iterable[Part], blob: str) -> None:
    """Assert that new parts hold as many bytes as the old ones, in blobs that are known."""
    old, new = list(old), list(new)
    assert old, "nothing to replace"
    assert sum(part.length for part in old) == sum(part.length for part in new), "other bytes"
    known = {blob, *(part.blob for part in old)}
    assert all(part.blob in known for part in new), "bytes of a third writer"
