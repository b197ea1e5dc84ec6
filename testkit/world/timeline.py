"""The last port calls of a world: what a failure shows first."""

import asyncio
from collections import deque

CALLS_MAX = 60


class Timeline:
    """Remembers the last `CALLS_MAX` things that happened, with their virtual time."""

    def __init__(self) -> None:
        self._calls: deque[tuple[float, str, str]] = deque(maxlen=CALLS_MAX)

    def note(self, who: str, what: str) -> None:
        """Remember one thing."""
        self._calls.append((asyncio.get_running_loop().time(), who, what))

    def text(self) -> str:
        """Return one line for each, the latest last."""
        return "\n".join(f"{at:10.3f}  {who:<14}  {what}" for at, who, what in self._calls)
