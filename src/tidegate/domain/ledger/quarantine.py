"""Rules of poison lines (PROTOCOL 20)."""

from dataclasses import replace

from tidegate.domain.claim import Claim
from tidegate.domain.ledger import claims as claim_rules
from tidegate.domain.shard import Shard


def check_shard_claim(shard: Shard | None, claim: Claim, index: int) -> Shard:
    """Return the shard of a claim whose holder may still write.

    Raises:
        ClaimLost: the shard has a higher epoch, or has ended.
    """
    if shard is None or shard.ended or shard.epoch != claim.epoch:
        raise claim_rules.claim_lost(claim)
    assert 0 <= index < shard.plan.lines, index
    return shard


def with_recorded_death(shard: Shard, index: int) -> Shard:
    """Return the shard after a sandbox death of the suspect line; a repeat adds none."""
    if shard.suspect != index:
        return shard
    deaths = {**shard.deaths, index: shard.deaths.get(index, 0) + 1}
    return replace(shard, deaths=deaths, suspect=None)
