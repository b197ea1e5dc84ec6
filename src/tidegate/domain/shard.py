"""A shard, the bitmap of its done lines, and the judgement of a commit (PROTOCOL 8)."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import msgspec

from tidegate.domain.usage import NO_USAGE, Usage

CRASHES_TO_QUARANTINE = 2
DEATHS_TO_BLAME = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """A slice of the plan blob: `lines` lines of one model in `length` bytes from `offset`."""

    number: int
    model: str
    offset: int
    length: int
    lines: int

    def __post_init__(self) -> None:
        assert self.lines > 0, self
        assert self.length > 0, self


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A shard as the ledger knows it.

    `done` is a bitmap, line i at bit i % 8 of byte i // 8. `sequence` counts accepted commits;
    `last_segment` is the id of the latest, so that a repeat can be answered.

    `crashes` counts the claims that were lost by a crash: taken over by another owner although
    nobody had handed them back. `suspect` is the line that was recorded before it was sent alone,
    `deaths` how often a child process died of each line so recorded (PROTOCOL 20).
    """

    batch_id: str
    plan: ShardPlan
    done: bytes
    epoch: int = 0
    sequence: int = 0
    last_segment: str | None = None
    ended: bool = False
    crashes: int = 0
    suspect: int | None = None
    deaths: Mapping[int, int] = field(default_factory=dict)

    @property
    def is_quarantined(self) -> bool:
        """Return whether its lines may only run one at a time, each in a child process."""
        return self.crashes >= CRASHES_TO_QUARANTINE


class Verdict(StrEnum):
    """What became of a shard's part in a commit."""

    ACCEPTED = "accepted"  # Recorded now, or recorded before under the same segment id.
    STALE = "stale"  # Another holder has a higher epoch, or the sequence does not follow.
    ENDED = "ended"  # The shard has ended; nothing may be added.
    REPEATED_LINE = "repeated_line"  # At least one line already has its result.


class Tally(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one line, or one commit, adds to the counts of the batch."""

    completed: int = 0
    failed: int = 0
    expired: int = 0
    usage: Usage = NO_USAGE

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            completed=self.completed + other.completed,
            failed=self.failed + other.failed,
            expired=self.expired + other.expired,
            usage=self.usage + other.usage,
        )

    @classmethod
    def of_all(cls, tallies: Collection["Tally"]) -> "Tally":
        """Return the sum; one call costs less than repeated addition."""
        return cls(
            completed=sum([tally.completed for tally in tallies]),
            failed=sum([tally.failed for tally in tallies]),
            expired=sum([tally.expired for tally in tallies]),
            usage=Usage.of_all([tally.usage for tally in tallies]),
        )


def no_lines_done(lines: int) -> bytes:
    """Return the bitmap of a shard of which no line is done."""
    return bytes((lines + 7) // 8)


def is_done(done: bytes, index: int) -> bool:
    """Return whether line `index` of the shard has its result."""
    return bool(done[index >> 3] & (1 << (index & 7)))


def any_done(done: bytes, indexes: Iterable[int]) -> bool:
    """Return whether any of these lines has its result."""
    return bool(_number(done) & _number(with_done(bytes(len(done)), indexes)))


def with_done(done: bytes, indexes: Iterable[int]) -> bytes:
    """Return the bitmap with these lines set."""
    bits = bytearray(done)
    for index in indexes:
        bits[index >> 3] |= 1 << (index & 7)
    return bytes(bits)


def count_done(done: bytes) -> int:
    """Count the lines that have their result."""
    return _number(done).bit_count()


def _number(done: bytes) -> int:
    return int.from_bytes(done, "little")


def judge(
    shard: Shard, *, epoch: int, sequence: int, segment_id: str, indexes: tuple[int, ...]
) -> Verdict:
    """Decide whether a commit of these lines may be recorded.

    A repeat of the latest segment is accepted again (its first answer); the caller sees by
    `shard.last_segment` that there is nothing left to apply.
    """
    if shard.last_segment == segment_id:
        return Verdict.ACCEPTED
    if shard.ended and shard.epoch == epoch:
        return Verdict.ENDED
    if shard.epoch != epoch or shard.sequence != sequence:
        return Verdict.STALE
    if any_done(shard.done, indexes):
        return Verdict.REPEATED_LINE
    return Verdict.ACCEPTED


def apply(shard: Shard, *, segment_id: str, indexes: tuple[int, ...]) -> Shard:
    """Return the shard with the lines recorded; it has ended when every line is done."""
    assert len(set(indexes)) == len(indexes), "a line twice in one commit"
    if indexes:
        assert min(indexes) >= 0, "a line before the shard"
        assert max(indexes) < shard.plan.lines, "a line beyond the shard"
    done = with_done(shard.done, indexes)
    count = count_done(done)
    assert count == count_done(shard.done) + len(indexes), "a line was done already"
    return replace(
        shard,
        done=done,
        sequence=shard.sequence + 1,
        last_segment=segment_id,
        ended=count == shard.plan.lines,
    )
