"""The progress of a run, from the reports of the processor and the counts of the ledger."""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from typing_extensions import override

from tidegate.domain.batch import Batch, Status
from tidegate.domain.errors import TidegateError
from tidegate.processor.observer import Observer

RATE_SECONDS = 30.0
SAMPLES_MAX = 400


class Phase(StrEnum):
    """The phase of a run."""

    READING = "reading"  # The input is read and uploaded.
    PLANNING = "planning"  # Its lines are validated and sorted.
    RUNNING = "running"  # Requests are sent.
    STOPPING = "stopping"  # Nothing new is sent; requests in flight may still complete.
    WRITING = "writing"  # The output is written.


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run at one instant. Rates are those of the last `RATE_SECONDS`; None is not known yet."""

    phase: Phase
    total: int
    completed: int
    failed: int
    in_flight: int
    limit: int
    lines_per_second: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    reason: str | None

    @property
    def done(self) -> int:
        """Lines that have their result."""
        return self.completed + self.failed


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    done: int
    tokens: int


class Progress(Observer):
    """Collects the progress of a run; `snapshot` returns it. Times are those of the event loop."""

    def __init__(self) -> None:
        self.phase = Phase.READING
        self.in_flight = 0
        self._batch: Batch | None = None
        self._limits: dict[str, int] = {}
        self._reasons: dict[str, str] = {}
        self._trouble: str | None = None
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES_MAX)

    def update(self, batch: Batch, now: float) -> None:
        """Record the batch as the ledger has it."""
        self._batch = batch
        if self.phase in {Phase.READING, Phase.PLANNING}:
            planning = batch.status is Status.VALIDATING
            self.phase = Phase.PLANNING if planning else Phase.RUNNING
        done = batch.counts.completed + batch.counts.failed
        self._samples.append(_Sample(now, done, batch.usage.total_tokens))
        # One sample older than the period is kept, so that the period is always covered.
        while len(self._samples) > 2 and self._samples[1].at <= now - RATE_SECONDS:  # noqa: PLR2004
            self._samples.popleft()

    @override
    def on_load(self, *, in_flight: int, open_shards: int, uncommitted: int) -> None:
        self.in_flight = in_flight
        self._trouble = None

    @override
    def on_endpoint_state(
        self, name: str, *, limit: int, in_flight: int, reason: str | None
    ) -> None:
        self._limits[name] = limit
        if reason is None:
            self._reasons.pop(name, None)
        else:
            self._reasons[name] = reason

    @override
    def on_store_unavailable(self, error: TidegateError) -> None:
        self._trouble = str(error)

    def snapshot(self) -> Snapshot:
        """Return the progress so far."""
        batch = self._batch
        counts = None if batch is None else batch.counts
        lines, tokens = self._rates()
        left = 0 if counts is None else counts.total - counts.completed - counts.failed
        return Snapshot(
            phase=self.phase,
            total=counts.total if counts else 0,
            completed=counts.completed if counts else 0,
            failed=counts.failed if counts else 0,
            in_flight=self.in_flight,
            limit=sum(self._limits.values()),
            lines_per_second=lines,
            tokens_per_second=tokens,
            seconds_left=left / lines if lines else None,
            reason=self._trouble or self._waiting(),
        )

    def _waiting(self) -> str | None:
        for name, reason in self._reasons.items():
            return f"{name}: {reason}"
        return None

    def _rates(self) -> tuple[float | None, float | None]:
        if len(self._samples) < 2:  # noqa: PLR2004 -- a rate needs two instants
            return None, None
        first, last = self._samples[0], self._samples[-1]
        seconds = last.at - first.at
        if seconds <= 0:
            return None, None
        return (last.done - first.done) / seconds, (last.tokens - first.tokens) / seconds
