"""Every bound of a processor, each with its name."""

from dataclasses import dataclass, field

from tidegate.domain.errors import SettingsInvalid
from tidegate.domain.retry import Retry
from tidegate.planning.settings import Planning, require_above_zero

# What the child process of a cell needs by itself, with room to spare.
SANDBOX_MEMORY_BYTES_MIN = 256 * 2**20
# How often the largest reply or line may lie in its memory while it is read, judged and passed on.
SANDBOX_MEMORY_FOR_EACH_BYTE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """How claims are held. A dead processor is replaced after `lease_seconds`.

    The keeper renews at a third of the lease, and only while the event loop made progress within
    `stall_seconds`.
    """

    lease_seconds: float = 15.0
    stall_seconds: float = 60.0
    poll_seconds: float = 0.6

    def __post_init__(self) -> None:
        require_above_zero(
            "claims",
            lease_seconds=self.lease_seconds,
            stall_seconds=self.stall_seconds,
            poll_seconds=self.poll_seconds,
        )
        if self.poll_seconds > self.lease_seconds / 3:
            raise SettingsInvalid("claims.poll_seconds must be at most a third of the lease.")


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlightLimits:
    """What may be open at once in one processor: shards, lines in flight, bytes, uncommitted lines.

    `in_flight_bytes_max` covers requests in flight, what their replies are expected to need, and
    results not yet committed; one item larger than all of it runs alone.
    """

    open_shards_max: int = 12
    in_flight_max: int = 256
    in_flight_bytes_max: int = 64 * 2**20
    uncommitted_lines_max: int = 500
    turn_seconds: float = 5.0

    def __post_init__(self) -> None:
        require_above_zero(
            "limits",
            open_shards_max=self.open_shards_max,
            in_flight_max=self.in_flight_max,
            in_flight_bytes_max=self.in_flight_bytes_max,
            uncommitted_lines_max=self.uncommitted_lines_max,
            turn_seconds=self.turn_seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """Child processes for lines in quarantine: how many at once, and what each may cost.

    `memory_bytes_max` bounds the address space of one child; one that is not ready within
    `start_seconds` counts as not started.
    """

    count_max: int = 4
    memory_bytes_max: int = 2**30
    start_seconds: float = 30.0

    def __post_init__(self) -> None:
        require_above_zero("sandbox", count_max=self.count_max, start_seconds=self.start_seconds)
        if self.memory_bytes_max < SANDBOX_MEMORY_BYTES_MIN:
            raise SettingsInvalid(
                f"sandbox.memory_bytes_max must be at least {SANDBOX_MEMORY_BYTES_MIN}: "
                "a child process needs as much to start."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Commits:
    """When results are cut into a commit: after a time, a number of lines or of bytes.

    `append_seconds` stands where the blob store appends locally, `put_seconds` where each commit is
    an object of its own.
    """

    append_seconds: float = 0.02
    put_seconds: float = 1.0
    lines_max: int = 500
    bytes_max: int = 4 * 2**20

    def __post_init__(self) -> None:
        require_above_zero(
            "commits",
            append_seconds=self.append_seconds,
            put_seconds=self.put_seconds,
            lines_max=self.lines_max,
            bytes_max=self.bytes_max,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """How long lines in flight may still land: after cancel or expiry, and after a stop signal."""

    drain_seconds: float = 30.0
    stop_grace_seconds: float = 30.0

    def __post_init__(self) -> None:
        if min(self.drain_seconds, self.stop_grace_seconds) < 0:
            raise SettingsInvalid(
                "drain.drain_seconds and drain.stop_grace_seconds can't be negative."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a processor."""

    claims: Claims = field(default_factory=Claims)
    limits: InFlightLimits = field(default_factory=InFlightLimits)
    sandbox: SandboxLimits = field(default_factory=SandboxLimits)
    planning: Planning = field(default_factory=Planning)
    commits: Commits = field(default_factory=Commits)
    retry: Retry = field(default_factory=Retry)
    drain: Drain = field(default_factory=Drain)
