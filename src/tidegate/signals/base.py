"""The promise of every signal carrier: none, beyond being quick when it works.

Topics are short strings: `work` (something may be claimable) and `batch/<id>` (look at its
status). Losing every signal costs at most one poll interval.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager

WORK = "work"
POLL_SECONDS_MAX = 0.25


def batch_topic(batch_id: str) -> str:
    """Return the topic on which changes of one batch are announced."""
    return f"batch/{batch_id}"


class Listener(ABC):
    """Remembers which of its topics were announced since the last wait."""

    @abstractmethod
    async def wait(self, timeout_seconds: float) -> frozenset[str]:
        """Return announced topics at once if there are any, else wait; empty when time is up."""


class Signals(ABC):
    """Carries announcements to whoever listens, inside one process or between many."""

    @abstractmethod
    def notify(self, topic: str) -> None:
        """Announce a topic. Never blocks, never raises."""

    @abstractmethod
    def listen(self, prefixes: tuple[str, ...]) -> AbstractContextManager[Listener]:
        """Return a listener to every topic that begins with one of the prefixes."""
