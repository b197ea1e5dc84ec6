"""Whether there is room to write: while there is none, nothing new is sent (PROTOCOL 13).

What comes back is waiting to be written already; more of it would only be lost by a crash.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from tidegate.blobs.base import BlobStore
from tidegate.domain.errors import StorageFull, StoreUnavailable
from tidegate.processor.observer import Observer
from tidegate.processor.wakeups import Wakeups
from tidegate.stores.base import Store

PROBE_SECONDS = 1.0
# Longer than whoever holds a claim takes to renew it once there is room again (the keeper).
HOLDERS_FIRST_SECONDS = 2.0


class WriteGate:
    """Full from the first write that finds no room, until that same write has found some.

    A write that was given up, or that is not repeated, is made good by a probe of ledger and
    blobs; at most one each `PROBE_SECONDS`.
    """

    def __init__(
        self, store: Store, blobs: BlobStore, observer: Observer, wakeups: Wakeups
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._observer = observer
        self._wakeups = wakeups
        self._waiting = 0
        self._unproven = False
        self._probed_at = float("-inf")
        self._freed_at = float("-inf")
        self.reason: str | None = None

    @property
    def is_full(self) -> bool:
        """Say whether a write was refused that has not succeeded since."""
        return self.reason is not None

    @property
    def pauses_claiming(self) -> bool:
        """Say whether nothing is to be claimed now: storage is full, or was a moment ago.

        Nobody could renew meanwhile. Whoever claimed first would take over what its holder is alive
        to renew, and that counts as lost by a crash.
        """
        now = asyncio.get_running_loop().time()
        return self.is_full or now - self._freed_at < HOLDERS_FIRST_SECONDS

    def refused(self, error: StorageFull) -> None:
        """Hear of a write that found no room and is not repeated as it was."""
        self._unproven = True
        self._fill(error)

    @contextmanager
    def waiting_write(self) -> Iterator["WriteRefusal"]:
        """Let one write be repeated in the block until it succeeds; leaving it says that it has.

        A block that is left by an error gave up: then a probe must show that there is room.
        """
        refusal = WriteRefusal(self)
        try:
            yield refusal
        except BaseException:
            self._unproven = self._unproven or refusal.happened
            raise
        finally:
            if refusal.happened:
                self._waiting -= 1
                self._settle()

    async def probe(self) -> None:
        """Find out whether there is room again, where no write that waits will tell."""
        now = asyncio.get_running_loop().time()
        if self._waiting or not self._unproven or now - self._probed_at < PROBE_SECONDS:
            return
        self._probed_at = now
        if await _finds_room(self._store.check) and await _finds_room(self._blobs.check):
            self._unproven = False
            self._settle()

    def note(self, error: StorageFull) -> None:
        """Count one more write that waits for room."""
        self._waiting += 1
        self._fill(error)

    def _fill(self, error: StorageFull) -> None:
        if self.reason is None:
            self.reason = str(error)
            self._observer.on_disk_full(self.reason)

    def _settle(self) -> None:
        if self.reason is not None and not self._waiting and not self._unproven:
            self.reason = None
            self._freed_at = asyncio.get_running_loop().time()
            self._observer.on_disk_full(None)
            self._wakeups.report_room()


class WriteRefusal:
    """Whether one write that is being repeated was ever refused for want of room."""

    def __init__(self, storage: WriteGate) -> None:
        self._storage = storage
        self.happened = False

    def hear(self, error: StorageFull) -> None:
        """Hear that it was refused, once more."""
        if not self.happened:
            self.happened = True
            self._storage.note(error)


async def _finds_room(check: Callable[[], Awaitable[None]]) -> bool:
    try:
        await check()
    except (StorageFull, StoreUnavailable):
        return False
    return True
