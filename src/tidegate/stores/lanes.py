"""Executors of a ledger's blocking work: threads in production.

A `Lane` runs steps one after the other and hands all that are waiting to its `Worker` as one group,
so that a worker may do them together (one transaction for many callers).
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from typing_extensions import override

from tidegate.domain.errors import StoreUnavailable

T = TypeVar("T")

GROUP_MAX = 128
WAITING_MAX = 10_000


class Step(ABC):
    """One piece of work on its way through a lane; `error` is set if it failed."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    @abstractmethod
    def run(self) -> None:
        """Do the work, and raise its error; the worker records it."""


class Call(Step, Generic[T]):
    """A step with a result."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__()
        self._work = work
        self._result: tuple[T] | None = None

    @override
    def run(self) -> None:
        self._result = (self._work(),)

    def outcome(self) -> T:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self._result is not None, "the step has not run"
        return self._result[0]


class Worker(ABC):
    """Does the steps of one lane, always on the same thread, one group at a time."""

    @abstractmethod
    def run(self, steps: Sequence[Step]) -> None:
        """Run every step, in order, and set `error` on those that failed. Raises nothing."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what the worker holds. Called last, once. Raises nothing."""


class Lane(ABC):
    """A way to one worker."""

    async def call(self, work: Callable[[], T]) -> T:
        """Run `work` in the lane and return its result, or raise its error.

        If the caller is cancelled while it waits, the work may or may not be done.

        Raises:
            StoreUnavailable: the lane is closed, or too many calls wait already.
        """
        step = Call(work)
        await self._submit(step)
        return step.outcome()

    @abstractmethod
    async def _submit(self, step: Step) -> None:
        """Return when the step has run."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was submitted, then close the worker. Harmless when repeated."""


class Executor(ABC):
    """Makes lanes."""

    @abstractmethod
    def open_lane(self, name: str, worker: Worker) -> Lane:
        """Open a lane to `worker`; `name` is for people who look at threads."""


class ThreadExecutor(Executor):
    """Gives each lane a thread of its own.

    At most `group_max` steps go to the worker together; with `waiting_max` steps under way in a
    lane, the next is refused.
    """

    def __init__(self, *, group_max: int = GROUP_MAX, waiting_max: int = WAITING_MAX) -> None:
        assert group_max > 0, group_max
        assert waiting_max > 0, waiting_max
        self._group_max = group_max
        self._waiting_max = waiting_max

    @override
    def open_lane(self, name: str, worker: Worker) -> Lane:
        return _ThreadLane(name, worker, group_max=self._group_max, waiting_max=self._waiting_max)


class _Ticket:
    """A step and the future of its caller."""

    __slots__ = ("done", "step")

    def __init__(self, step: Step, done: asyncio.Future[None]) -> None:
        self.step = step
        self.done = done


class _ThreadLane(Lane):
    def __init__(self, name: str, worker: Worker, *, group_max: int, waiting_max: int) -> None:
        self._worker = worker
        self._group_max = group_max
        self._waiting_max = waiting_max
        self._waiting = 0
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        # `waiting_max` bounds it; None is the last entry.
        self._queue: SimpleQueue[_Ticket | None] = SimpleQueue()
        self._thread = Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    @override
    async def _submit(self, step: Step) -> None:
        if self._closing:
            raise _closed()
        if self._waiting >= self._waiting_max:
            raise StoreUnavailable(
                f"The ledger has {self._waiting} calls waiting already; try again in a moment."
            )
        ticket = _Ticket(step, self._loop.create_future())
        self._waiting += 1
        self._queue.put(ticket)
        await ticket.done

    @override
    async def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        # Shielded, so that a second close can wait when the first was cancelled.
        await asyncio.shield(self._stopped)
        self._thread.join()

    def _deliver(self, group: Sequence[_Ticket]) -> None:
        self._waiting -= len(group)
        for ticket in group:
            if not ticket.done.done():  # A cancelled caller waits no more.
                ticket.done.set_result(None)

    def _stop(self) -> None:
        if not self._stopped.done():
            self._stopped.set_result(None)

    # Below: the lane's own thread.

    def _serve(self) -> None:
        try:
            while group := self._next_group():
                self._run(group)
                self._tell(partial(self._deliver, group))
            self._worker.close()
        finally:
            self._tell(self._stop)

    def _run(self, group: Sequence[_Ticket]) -> None:
        try:
            self._worker.run([ticket.step for ticket in group])
        except BaseException as error:  # noqa: BLE001 -- every caller must get the error; otherwise they would wait indefinitely
            for ticket in group:
                ticket.step.error = error

    def _next_group(self) -> list[_Ticket]:
        first = self._queue.get()
        group = [] if first is None else [first]
        while group and len(group) < self._group_max:
            try:
                ticket = self._queue.get_nowait()
            except Empty:
                break
            if ticket is None:
                self._queue.put(None)  # Nothing can follow it; meet it again after this group.
                break
            group.append(ticket)
        return group

    def _tell(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return  # The loop is closed, and with it everybody who waited.


def _closed() -> StoreUnavailable:
    return StoreUnavailable("The ledger is closed; open it before use.")
