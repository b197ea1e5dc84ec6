"""Every bound of a processor, each with its name."""

from dataclasses import dataclass, field

from tidegate.domain.errors import SettingsInvalid
from tidegate.domain.retry import Retry
from tidegate.planning.settings import Planning, require_above_zero

# What the child process of a sandbox needs to start, with room to spare.
SANDBOX_MEMORY_BYTES_MIN = 256 * 2**20
# How many copies of the largest reply or line its memory must hold.
SANDBOX_MEMORY_FOR_EACH_BYTE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """How claims are held. A dead processor is replaced after `lease_seconds`.

    The lease renewer renews claims at a third of the lease, but only if the event loop made
    progress within `stall_seconds`.
    """

    lease_seconds: float = 15.0
    stall_seconds: float = 60.0
    poll_seconds: float = 0.6

    def __post_init__(self) -> None:
        require_above_zero("claims", self, "lease_seconds", "stall_seconds", "poll_seconds")
        if self.poll_seconds > self.lease_seconds / 3:
            raise SettingsInvalid("claims.poll_seconds must be at most a third of the lease.")


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlightLimits:
    """Limits of one processor: open shards, lines in flight, bytes, uncommitted lines.

    `in_flight_bytes_max` covers requests in flight, the expected size of their replies, and results
    not yet committed; one line larger than that runs alone.
    """

    open_shards_max: int = 12
    in_flight_max: int = 256
    in_flight_bytes_max: int = 64 * 2**20
    uncommitted_lines_max: int = 500
    turn_seconds: float = 5.0

    def __post_init__(self) -> None:
        require_above_zero(
            "limits",
            self,
            "open_shards_max",
            "in_flight_max",
            "in_flight_bytes_max",
            "uncommitted_lines_max",
            "turn_seconds",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """Child processes for lines in quarantine: how many, and what each may cost.

    `memory_bytes_max` bounds the address space of one child; one that is not ready within
    `start_seconds` counts as not started.
    """

    count_max: int = 4
    memory_bytes_max: int = 2**30
    start_seconds: float = 30.0

    def __post_init__(self) -> None:
        require_above_zero("sandbox", self, "count_max", "start_seconds")
        if self.memory_bytes_max < SANDBOX_MEMORY_BYTES_MIN:
            raise SettingsInvalid(
                f"sandbox.memory_bytes_max must be at least {SANDBOX_MEMORY_BYTES_MIN}: "
                "a child process needs that much to start."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Commits:
    """When results are committed: after a time, a number of lines or of bytes.

    `append_seconds` applies if the blob store can append, `put_seconds` if each commit writes a new
    object.
    """

    append_seconds: float = 0.02
    put_seconds: float = 1.0
    lines_max: int = 500
    bytes_max: int = 4 * 2**20

    def __post_init__(self) -> None:
        require_above_zero(
            "commits", self, "append_seconds", "put_seconds", "lines_max", "bytes_max"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """How long attempts in flight may still finish: after cancel or expiry, and after a stop."""

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
