"""Rules of claims: who may work on a unit, and for how long.

`now` is the ledger's time; nothing here reads a clock.
"""

import math
from dataclasses import dataclass, replace

from tidegate.domain.claim import Claim
from tidegate.domain.errors import ClaimLost


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The claim on a unit. `epoch` counts the claims ever taken; an ended unit keeps its last.

    A unit that was never claimed or was handed back has no owner and `expires_at` 0; one whose
    lines run again keeps its owner with `expires_at` 0 and a higher epoch (PROTOCOL 19).
    `not_before`, an instant of the ledger's clock, delays the next claim after a hand-back.
    `crashes` counts the claims that another owner took over although they had not been handed back.
    """

    owner: str | None = None
    epoch: int = 0
    expires_at: float = 0.0
    not_before: float | None = None
    ended: bool = False
    crashes: int = 0


def is_live(hold: Hold, now: float) -> bool:
    """Return whether the unit is claimed and the claim has not expired."""
    return not hold.ended and now < hold.expires_at


def is_claimable(hold: Hold, now: float, *, ending: bool) -> bool:
    """Return whether the unit may be claimed. `ending` lifts the wait after a hand-back."""
    if hold.ended or is_live(hold, now):
        return False
    return ending or hold.not_before is None or hold.not_before <= now


def taken(hold: Hold, owner: str, expires_at: float) -> Hold:
    """Return the hold after a claim: a higher epoch, which ends every earlier right to write."""
    assert not hold.ended, "an ended unit was claimed"
    crashed = hold.owner is not None and hold.owner != owner
    return Hold(
        owner=owner,
        epoch=hold.epoch + 1,
        expires_at=expires_at,
        crashes=hold.crashes + int(crashed),
    )


def fenced(hold: Hold) -> Hold:
    """Return the hold after a collector fenced an expired claim: its owner can't write."""
    assert not hold.ended, "an ended unit was fenced"
    crashed = hold.owner is not None
    return replace(
        hold, owner=None, epoch=hold.epoch + 1, expires_at=0.0, crashes=hold.crashes + int(crashed)
    )


def handed_back(hold: Hold, now: float, wait_seconds: float) -> Hold:
    """Return the hold after its owner gave it up; the epoch stays until the next claim."""
    not_before = after_wait(now, wait_seconds)
    return replace(hold, owner=None, expires_at=0.0, not_before=not_before)


def after_wait(now: float, wait_seconds: float) -> float | None:
    """Return when a unit that is handed back may be claimed; None if immediately."""
    assert 0.0 <= wait_seconds < math.inf, wait_seconds
    return now + wait_seconds if wait_seconds > 0.0 else None


def is_kept(hold: Hold | None, claim: Claim) -> bool:
    """Return whether the claim is still its owner's: not ended, handed back or taken over."""
    if hold is None or hold.ended:
        return False
    return hold.epoch == claim.epoch and hold.owner == claim.owner


def claim_lost(claim: Claim) -> ClaimLost:
    """Return the error for a claim on a unit that another owner took or that doesn't exist."""
    unit = claim.unit
    return ClaimLost(
        f"The claim on the {unit.kind} of batch '{unit.batch_id}' is lost (epoch {claim.epoch}); "
        "drop the work and claim again."
    )


def check_epoch(hold: Hold, claim: Claim) -> None:
    """Refuse a claim that is not the latest one of its unit.

    Raises:
        ClaimLost: another claim followed it.
    """
    if hold.epoch != claim.epoch:
        raise claim_lost(claim)
