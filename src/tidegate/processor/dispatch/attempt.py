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

# What became of a flight. None: nobody waits for it here any more.
Landing = Reply | UpstreamFault | SandboxDeath | SandboxNotStarted | None


class AttemptListener(Protocol):
    """Who sent a flight off. Both return at once."""

    def landed(self, flight: "Attempt", landing: Landing) -> None:
        """Hear that it landed: exactly once for each flight."""
        ...

    def unanswered(self, flight: "Attempt") -> None:
        """Hear that its call has to be sent once more, on a fresh connection."""
        ...


class Attempt:
    """A line under way: by a call that an upstream has begun, or by a task that carries it.

    It lands exactly once, whatever happens, and the tower hears of it.

    Attributes:
        endpoint: where it was counted as it began; its shard may name another one by now.
        sent_at: time of the event loop.
        in_flight_at_send: requests in flight at the endpoint when it was sent, itself included.
        reserved_bytes: what it counts for in the budget.
        is_fixed: it can't be cut now.
    """

    __slots__ = ("_cut_due", "_cut_timer", "_landed", "_tower", "call", "endpoint",
                 "in_flight_at_send", "index", "is_fixed", "line", "request_id",
                 "reserved_bytes", "run", "sending", "sent_at", "shard", "task")  # fmt: skip

    def __init__(  # noqa: PLR0913 -- all that is to be known of it, given once
        self,
        run: OpenBatch,
        shard: OpenShard,
        index: int,
        endpoint: Endpoint,
        *,
        sent_at: float,
        reserved_bytes: int,
        tower: AttemptListener,
    ) -> None:
        self.run = run
        self.shard = shard
        self.index = index
        self.line: PlanLine = shard.lines[index]
        self.endpoint = endpoint
        self.sent_at = sent_at
        self.in_flight_at_send = 0
        self.reserved_bytes = reserved_bytes
        self.request_id = request_id = run.request_id(self.line.number)
        self.call = Call(
            path=run.batch.endpoint,
            body=self.line.body,
            headers={"x-request-id": request_id, "idempotency-key": request_id},
        )
        self.sending: PendingCall | None = None
        self.task: asyncio.Task[Landing] | None = None
        self.is_fixed = False
        self._tower = tower
        self._landed = False
        self._cut_due = 0.0
        self._cut_timer: asyncio.TimerHandle | None = None

    def on_reply(self, result: Reply | UpstreamFault) -> None:
        """Hear from the upstream what became of the call that it began."""
        self.sending = None
        if isinstance(result, StaleConnection):
            self._tower.unanswered(self)
        else:
            self.land(result)

    def on_done(self, task: "asyncio.Task[Landing]") -> None:
        """Hear that the task that carried it has ended.

        What it could not make a landing of ends the whole group of tasks, and is not ours.
        """
        self.task = None
        if task.cancelled():
            self.land(None)
        elif task.exception() is None:
            self.land(task.result())

    def land(self, landing: Landing) -> None:
        """Land; a second time is a mistake of ours."""
        assert not self._landed, "a line landed twice"
        self._landed = True
        if self._cut_timer is not None:
            self._cut_timer.cancel()
            self._cut_timer = None
        self._tower.landed(self, landing)

    def cut_at(self, when: float) -> None:
        """Give the flight until `when` to land; an earlier limit stays."""
        if self._landed or (self._cut_timer is not None and self._cut_due <= when):
            return
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        self._cut_due = when
        self._cut_timer = asyncio.get_running_loop().call_at(when, self._cut)

    def _cut(self) -> None:
        if self.is_fixed:
            return
        if self.sending is not None:
            self.abandon()
            self.land(None)
        elif self.task is not None:
            self.task.cancel()

    def abandon(self) -> None:
        """End the call that an upstream has begun; nothing is heard of it any more."""
        sending, self.sending = self.sending, None
        if sending is not None:
            sending.abandon(self)
