"""Whether there is room to write: while there is none, no line is sent (PROTOCOL 13).

Results that have come back already wait to be written; a crash would only lose more of them.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tidegate.blobs.base import BlobStore
from tidegate.domain.errors import StorageFull, StoreUnavailable
from tidegate.processor.observer import Observer
from tidegate.processor.wakeups import Wakeups
from tidegate.stores.base import Store

PROBE_SECONDS = 1.0
# Longer than a lease renewer takes to renew its claims once there is room again.
HOLDERS_FIRST_SECONDS = 2.0
_PAUSE_SECONDS_MIN = 0.05
_PAUSE_SECONDS_MAX = 2.0

T = TypeVar("T")


class WriteGate:
    """Full from the first write that finds no room, until that same write succeeds.

    If a refused write was given up or is not repeated, a probe of ledger and blobs must succeed
    instead; there is at most one probe each `PROBE_SECONDS`.

    Attributes:
        reason: why a write was refused, if none has succeeded since; else None.
    """

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        observer: Observer,
        wakeups: Wakeups,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._observer = observer
        self._wakeups = wakeups
        self._rng = rng
        self._waiting = 0
        self._unproven = False
        self._probed_at = float("-inf")
        self._freed_at = float("-inf")
        self.reason: str | None = None

    @property
    def is_full(self) -> bool:
        """Whether a write was refused and has not succeeded since."""
        return self.reason is not None

    @property
    def pauses_claiming(self) -> bool:
        """Whether nothing is to be claimed now: storage is full, or was a moment ago.

        No holder could renew meanwhile. To claim before the holders renew would take their claims
        over while they are alive, and that counts as lost by a crash.
        """
        now = asyncio.get_running_loop().time()
        return self.is_full or now - self._freed_at < HOLDERS_FIRST_SECONDS

    def refused(self, error: StorageFull) -> None:
        """Record a write that found no room and is not repeated as it was."""
        self._unproven = True
        self._fill(error)

    async def retry_until_answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call until it is answered (PROTOCOL 9); pauses double up to two seconds.

        Only for calls that may be repeated: a store gives a repeat its first answer, and a blob
        store writes the same bytes under the same name. A full disk is waited for as well, because
        freeing space ends it; until then this gate is full. Any other error is an answer.
        """
        pause = _PAUSE_SECONDS_MIN
        refused = False
        try:
            while True:
                try:
                    return await ask()
                except StorageFull as error:
                    if not refused:
                        refused = True
                        self._waiting += 1
                    self._fill(error)
                except StoreUnavailable:
                    pass
                await asyncio.sleep(pause * (0.5 + self._rng.random()))
                pause = min(_PAUSE_SECONDS_MAX, pause * 2)
        except BaseException:
            self._unproven = self._unproven or refused
            raise
        finally:
            if refused:
                self._waiting -= 1
                self._settle()

    async def probe(self) -> None:
        """Find out whether there is room again, unless a waiting write will show it."""
        now = asyncio.get_running_loop().time()
        if self._waiting or not self._unproven or now - self._probed_at < PROBE_SECONDS:
            return
        self._probed_at = now
        if await _finds_room(self._store.check) and await _finds_room(self._blobs.check):
            self._unproven = False
            self._settle()

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


async def _finds_room(check: Callable[[], Awaitable[None]]) -> bool:
    try:
        await check()
    except (StorageFull, StoreUnavailable):
        return False
    return True
