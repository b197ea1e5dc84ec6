"""Announcements inside one process, on one event loop."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from typing_extensions import override

from tidegate.signals.base import Listener, Signals

PENDING_TOPICS_MAX = 10_000


class MemorySignals(Signals):
    """Hands each announcement to the listeners of its own event loop, at once.

    `notify` belongs to the loop's thread. It uses the loop's timers alone, so that it runs in
    virtual time as well.
    """

    def __init__(self) -> None:
        # A dictionary keeps the order of subscription, which a replayed simulation needs.
        self._listeners: dict[_MemoryListener, None] = {}

    @override
    def notify(self, topic: str) -> None:
        for listener in self._listeners:
            listener.hear(topic)

    @override
    def listen(self, prefixes: tuple[str, ...]) -> AbstractContextManager[Listener]:
        return self._subscription(prefixes)

    @contextmanager
    def _subscription(self, prefixes: tuple[str, ...]) -> Iterator[Listener]:
        listener = _MemoryListener(prefixes)
        self._listeners[listener] = None
        try:
            yield listener
        finally:
            del self._listeners[listener]


class _MemoryListener(Listener):
    """Remembers at most `PENDING_TOPICS_MAX` topics; what comes on top is lost, as signals may."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self._prefixes = prefixes
        self._pending: set[str] = set()
        self._waiter: asyncio.Future[None] | None = None

    def hear(self, topic: str) -> None:
        """Remember a topic if it is one of ours, and wake who waits."""
        if not topic.startswith(self._prefixes) or len(self._pending) >= PENDING_TOPICS_MAX:
            return
        self._pending.add(topic)
        if self._waiter is not None:
            _wake(self._waiter)

    @override
    async def wait(self, timeout_seconds: float) -> frozenset[str]:
        assert self._waiter is None, "two tasks wait on one listener"
        if not self._pending:
            await self._rest(timeout_seconds)
        # Whatever ended the rest, the topics are taken here without a pause in between: one that
        # raced with the time-out is in this answer, and one that raced with a cancel stays.
        topics = frozenset(self._pending)
        self._pending.clear()
        return topics

    async def _rest(self, timeout_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(max(timeout_seconds, 0.0), _wake, self._waiter)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
