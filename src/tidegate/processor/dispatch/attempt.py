"""One line on its way to an endpoint and back."""

import asyncio
from typing import Protocol

from tidegate.domain.errors import SandboxNotStarted, UpstreamFault
from tidegate.endpoints.endpoint import Endpoint
from tidegate.processor.dispatch.open_batch import OpenBatch
from tidegate.processor.dispatch.open_shard import OpenShard
from tidegate.processor.dispatch.quarantine import SandboxDeath
from tidegate.upstreams.base import Call, PendingCall, Reply, StaleConnection
from tidegate.wire.plan_format import PlanLine

# How an attempt ended. None: it was cancelled.
AttemptResult = Reply | UpstreamFault | SandboxDeath | SandboxNotStarted | None


class AttemptListener(Protocol):
    """The sender of an attempt. Both methods return immediately."""

    def on_finished(self, attempt: "Attempt", result: AttemptResult) -> None:
        """Handle the end of an attempt; called exactly once for each."""

    def on_stale_connection(self, attempt: "Attempt") -> None:
        """Send its call again on a new connection."""


class Attempt:
    """One call for one line: begun by an upstream, or made by a task.

    It finishes exactly once, and then calls its listener.

    Attributes:
        endpoint: the endpoint that counts it; its shard may name another one by now.
        sent_at: time of the event loop.
        in_flight_at_send: requests in flight at the endpoint when it was sent, itself included.
        reserved_bytes: what it counts for in the budget.
        pending: the call that an upstream has begun, while its reply is awaited.
        must_finish: it can't be cancelled now.
    """

    __slots__ = (
        "_cancel_due",
        "_cancel_timer",
        "_is_finished",
        "_listener",
        "call",
        "endpoint",
        "in_flight_at_send",
        "index",
        "line",
        "must_finish",
        "open_batch",
        "pending",
        "request_id",
        "reserved_bytes",
        "sent_at",
        "shard",
        "task",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 -- its facts, given once
        self,
        open_batch: OpenBatch,
        shard: OpenShard,
        index: int,
        endpoint: Endpoint,
        *,
        sent_at: float,
        reserved_bytes: int,
        listener: AttemptListener,
    ) -> None:
        self.open_batch = open_batch
        self.shard = shard
        self.index = index
        self.line: PlanLine = shard.lines[index]
        self.endpoint = endpoint
        self.sent_at = sent_at
        self.in_flight_at_send = 0
        self.reserved_bytes = reserved_bytes
        self.request_id = request_id = open_batch.request_id(self.line.number)
        self.call = Call(
            path=open_batch.batch.endpoint,
            body=self.line.body,
            headers={"x-request-id": request_id, "idempotency-key": request_id},
        )
        self.pending: PendingCall | None = None
        self.task: asyncio.Task[AttemptResult] | None = None
        self.must_finish = False
        self._listener = listener
        self._is_finished = False
        self._cancel_due = 0.0
        self._cancel_timer: asyncio.TimerHandle | None = None

    def on_reply(self, result: Reply | UpstreamFault) -> None:
        """Handle the reply or fault of the call that the upstream began."""
        self.pending = None
        if isinstance(result, StaleConnection):
            self._listener.on_stale_connection(self)
        else:
            self.finish(result)

    def on_done(self, task: "asyncio.Task[AttemptResult]") -> None:
        """Handle the end of the task that made the call.

        If the task raised, its error ends the whole task group; nothing is left to do here.
        """
        self.task = None
        if task.cancelled():
            self.finish(None)
        elif task.exception() is None:
            self.finish(task.result())

    def finish(self, result: AttemptResult) -> None:
        """End the attempt with this result; it must not have ended before."""
        assert not self._is_finished, "an attempt finished twice"
        self._is_finished = True
        if self._cancel_timer is not None:
            self._cancel_timer.cancel()
            self._cancel_timer = None
        self._listener.on_finished(self, result)

    def cancel_at(self, when: float) -> None:
        """Cancel the attempt at this time of the event loop, unless it is due earlier."""
        if self._is_finished or (self._cancel_timer is not None and self._cancel_due <= when):
            return
        if self._cancel_timer is not None:
            self._cancel_timer.cancel()
        self._cancel_due = when
        self._cancel_timer = asyncio.get_running_loop().call_at(when, self._cancel)

    def _cancel(self) -> None:
        if self.must_finish:
            return
        if self.pending is not None:
            self.abandon()
            self.finish(None)
        elif self.task is not None:
            self.task.cancel()

    def abandon(self) -> None:
        """Drop the call that an upstream has begun; its reply is ignored."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.abandon(self)
