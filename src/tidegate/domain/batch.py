"""A batch and the only ways in which its status may change (PROTOCOL 15 to 17)."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from tidegate.domain.errors import Conflict
from tidegate.domain.usage import Usage


class Status(StrEnum):
    """The status of a batch in its life."""

    VALIDATING = "validating"  # Accepted; its lines are not yet checked and planned.
    FAILED = "failed"  # Terminal: the input can't be run; `problems` says why.
    IN_PROGRESS = "in_progress"  # Planned; its lines are being run.
    FINALIZING = "finalizing"  # Every line has its result; the books are being closed.
    COMPLETED = "completed"  # Terminal: every line ran to a result of its own.
    EXPIRED = "expired"  # Terminal: the window closed before every line had run.
    CANCELLING = "cancelling"  # The user asked to stop; what is in flight may still land.
    CANCELLED = "cancelled"  # Terminal: ended by the user.


NEXT: dict[Status, frozenset[Status]] = {
    Status.VALIDATING: frozenset(
        {Status.IN_PROGRESS, Status.FAILED, Status.CANCELLING, Status.EXPIRED}
    ),
    Status.IN_PROGRESS: frozenset({Status.FINALIZING, Status.CANCELLING}),
    Status.FINALIZING: frozenset({Status.COMPLETED, Status.EXPIRED}),
    Status.CANCELLING: frozenset({Status.CANCELLED}),
    Status.FAILED: frozenset(),
    Status.COMPLETED: frozenset(),
    Status.EXPIRED: frozenset(),
    Status.CANCELLED: frozenset(),
}
assert set(NEXT) == set(Status)

TERMINAL = frozenset(status for status, following in NEXT.items() if not following)
LIVE = frozenset(Status) - TERMINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One reason why a batch could not be run. `line` is a physical line number from 1, or None."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Lines of a batch. `expired` of the `failed` ones ended because the window closed."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    expired: int = 0

    def __post_init__(self) -> None:
        assert min(self.total, self.completed, self.failed, self.expired) >= 0, self
        assert self.completed + self.failed <= self.total, self
        assert self.expired <= self.failed, self


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One job. Times are Unix seconds.

    `version` grows by one with each change of status, and only then.
    `output_file_id` and `error_file_id` are reserved when the batch is planned; the files exist
    from their first byte on (`output_bytes`, `error_bytes`: bytes written so far).
    """

    id: str
    tenant: str
    endpoint: str
    input_file_id: str
    completion_window: str
    status: Status
    created_at: float
    expires_at: float
    version: int = 0
    metadata: dict[str, str] | None = None
    output_expires_seconds: int | None = None
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    counts: Counts = field(default_factory=Counts)
    usage: Usage = field(default_factory=Usage)
    problems: tuple[Problem, ...] = ()
    models: tuple[str, ...] = ()
    plan_blob: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    output_bytes: int = 0
    error_bytes: int = 0
    waiting_for: str | None = None
    idempotency_key: str | None = None
    request_digest: str | None = None

    @property
    def is_terminal(self) -> bool:
        """Return whether the batch is terminal."""
        return self.status in TERMINAL

    @property
    def is_cancelling(self) -> bool:
        """Return whether the user asked for its end and it has not ended yet."""
        return self.status is Status.CANCELLING

    @property
    def is_planned(self) -> bool:
        """Return whether its lines were checked and turned into shards."""
        return self.in_progress_at is not None


_STAMP = {
    Status.IN_PROGRESS: "in_progress_at",
    Status.FINALIZING: "finalizing_at",
    Status.COMPLETED: "completed_at",
    Status.FAILED: "failed_at",
    Status.EXPIRED: "expired_at",
    Status.CANCELLING: "cancelling_at",
    Status.CANCELLED: "cancelled_at",
}
assert set(_STAMP) == set(Status) - {Status.VALIDATING}


def move(batch: Batch, status: Status, at: float) -> Batch:
    """Return the batch in its new status, stamped and with the next version.

    `at` is a Unix time; a clock that ran backwards is held at the batch's latest stamp, so that
    the stamps of one batch never decrease.

    Raises:
        Conflict: `NEXT` has no such step.
    """
    if status not in NEXT[batch.status]:
        raise Conflict(f"A batch can't go from '{batch.status}' to '{status}'.")
    latest = max(
        [batch.created_at] + [stamp for name in _STAMP.values() if (stamp := getattr(batch, name))]
    )
    return replace(
        batch, status=status, version=batch.version + 1, **{_STAMP[status]: max(at, latest)}
    )


def ask_cancel(batch: Batch, at: float) -> Batch:
    """Return the batch as it is after the user asked to cancel it (PROTOCOL 16).

    Cancelling or cancelled already: unchanged.

    Raises:
        Conflict: it is finalizing, or ended in another way.
    """
    if batch.status in {Status.CANCELLING, Status.CANCELLED}:
        return batch
    if Status.CANCELLING not in NEXT[batch.status]:
        raise Conflict(f"Cannot cancel a batch with status '{batch.status}'.")
    if at >= batch.expires_at or batch.counts.expired:
        # Expiry came first, and lines may say so already; two reasons for one end would contradict.
        raise Conflict("Cannot cancel a batch whose completion window has closed.")
    return move(batch, Status.CANCELLING, at)


def after_last_shard(batch: Batch, at: float) -> Batch:
    """Return the batch once its last shard has ended: finalizing, or still cancelling."""
    if batch.status is Status.IN_PROGRESS:
        return move(batch, Status.FINALIZING, at)
    return batch


def close(batch: Batch, at: float) -> Batch:
    """Return the batch in the terminal status that its life earned (PROTOCOL 16)."""
    assert batch.counts.completed + batch.counts.failed == batch.counts.total, batch.counts
    if batch.status is Status.CANCELLING:
        return move(batch, Status.CANCELLED, at)
    if batch.counts.expired:
        return move(batch, Status.EXPIRED, at)
    return move(batch, Status.COMPLETED, at)
