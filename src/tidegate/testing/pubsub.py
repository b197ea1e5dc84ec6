"""Signals that deliver nothing: code that works with them works by its polls alone."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from typing_extensions import override

from tidegate.pubsub.base import Listener, PubSub


class SilentSignals(PubSub):
    """Loses every announcement."""

    @override
    def publish(self, topic: str) -> None:
        return

    @override
    def listen(self, prefixes: tuple[str, ...]) -> AbstractContextManager[Listener]:
        return _deaf()


class _DeafListener(Listener):
    @override
    async def wait(self, timeout_seconds: float) -> frozenset[str]:
        await asyncio.sleep(max(timeout_seconds, 0.0))
        return frozenset()


@contextmanager
def _deaf() -> Iterator[Listener]:
    yield _DeafListener()
