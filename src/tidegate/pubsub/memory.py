"""Pubsub inside one process, on one event loop."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from typing_extensions import override

from tidegate.pubsub.base import Listener, PubSub

PENDING_TOPICS_MAX = 10_000


class MemoryPubSub(PubSub):
    """Passes each topic immediately to the listeners of its own event loop.

    `publish` must be called on the loop's thread. Only the loop's timers are used, so that it also
    runs in virtual time.
    """

    def __init__(self) -> None:
        # A dictionary keeps the order of subscription, which a replayed simulation needs.
        self._listeners: dict[_MemoryListener, None] = {}

    @override
    def publish(self, topic: str) -> None:
        for listener in self._listeners:
            listener.receive(topic)

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
    """Remembers at most `PENDING_TOPICS_MAX` topics; further ones are lost, as topics may be."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self._prefixes = prefixes
        self._pending: set[str] = set()
        self._waiter: asyncio.Future[None] | None = None

    def receive(self, topic: str) -> None:
        """Remember a topic with one of our prefixes, and wake the waiting task."""
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
        # The topics are taken without a pause after the wait: one that raced with the timeout is in
        # this answer, and one that raced with a cancellation stays.
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
