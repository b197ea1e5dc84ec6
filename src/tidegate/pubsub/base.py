"""The contract of every pubsub: fast delivery if it works, and no guarantee.

Topics are short strings: `work` (something may be claimable) and `batch/<id>` (its status may have
changed). Losing every message costs at most one poll interval.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager

WORK = "work"
POLL_SECONDS_MAX = 0.25


def batch_topic(batch_id: str) -> str:
    """Return the topic on which changes of one batch are published."""
    return f"batch/{batch_id}"


class Listener(ABC):
    """Remembers which of its topics were published since the last wait."""

    @abstractmethod
    async def wait(self, timeout_seconds: float) -> frozenset[str]:
        """Return published topics, waiting for the first one; an empty set after the timeout."""


class PubSub(ABC):
    """Carries topics to listeners, inside one process or between processes."""

    @abstractmethod
    def publish(self, topic: str) -> None:
        """Publish a topic. Never blocks, never raises."""

    @abstractmethod
    def listen(self, prefixes: tuple[str, ...]) -> AbstractContextManager[Listener]:
        """Return a listener to every topic that begins with one of the prefixes."""
