"""Whether there is room to write, also in a process that writes little by itself."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from tidegate.domain.errors import StorageFull, StoreUnavailable

LOOK_SECONDS = 5.0
LOOK_SECONDS_FULL = 1.0
PROOF_SECONDS_MAX = 5.0


class SpaceWatch:
    """A service that proves every `LOOK_SECONDS` that something can be written.

    While there is no room it looks every `LOOK_SECONDS_FULL`. `tell` hears the reason once when the
    room is gone, and None once when it is back. Proofs without an answer within
    `PROOF_SECONDS_MAX` change nothing.
    """

    def __init__(
        self, proofs: Sequence[Callable[[], Awaitable[None]]], tell: Callable[[str | None], None]
    ) -> None:
        self._proofs = proofs
        self._tell = tell
        self._end = asyncio.Event()
        self._reason: str | None = None

    @property
    def is_full(self) -> bool:
        """Say whether the last proof that was answered found no room."""
        return self._reason is not None

    async def run(self) -> None:
        """Look until stopped.

        Raises:
            StorageBroken: a flush failed; what was written may be gone.
        """
        while not self._end.is_set():
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(PROOF_SECONDS_MAX):
                    reason = await self._look()
                self._hear(reason)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS_FULL if self.is_full else LOOK_SECONDS):
                    await self._end.wait()

    def stop(self) -> None:
        """End after the proof at hand."""
        self._end.set()

    def abort(self) -> None:
        """End after the proof at hand, which has a bound."""
        self._end.set()

    async def _look(self) -> str | None:
        """Return why there is no room; None where every proof found some."""
        try:
            for prove in self._proofs:
                await prove()
        except StorageFull as error:
            return str(error)
        return None

    def _hear(self, reason: str | None) -> None:
        was_full, self._reason = self.is_full, reason
        if was_full != self.is_full:
            self._tell(reason)
