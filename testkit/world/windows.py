"""When the windows of batches close, by the clock of the ledger alone."""

import asyncio
import math

from testkit.world.broken import Broken
from tidegate.domain.batch import Batch
from tidegate.runtime.clock import Clock


class Windows:
    """Knows the latest time that the ledger can have been understood to report.

    Its clock may be set back: an earlier answer may still be believed until it is asked again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_max = -math.inf

    def note_time(self) -> None:
        """Record that the ledger reported its time, or which batches are past their window."""
        ahead = self._clock.now() - asyncio.get_running_loop().time()
        self._ahead_max = max(self._ahead_max, ahead)

    def expired(self, batch: Batch) -> None:
        """Record that lines of a batch have expired.

        Raises:
            Broken: its window had not closed by any answer of the ledger.
        """
        if asyncio.get_running_loop().time() + self._ahead_max < batch.expires_at:
            raise Broken(f"lines of {batch.id} expired before its window had closed")
