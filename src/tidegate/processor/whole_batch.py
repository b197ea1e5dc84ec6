"""Work on a whole batch under one claim: planning it, and closing its books."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from tidegate.domain.errors import (
    BlobMissing,
    CellNotStarted,
    ClaimLost,
    StorageFull,
    StoreUnavailable,
)
from tidegate.processor.census import Census
from tidegate.processor.closer import Closer
from tidegate.processor.cut import Cut
from tidegate.processor.keeper import Keeper
from tidegate.processor.observer import Observer
from tidegate.processor.planner import Planner
from tidegate.processor.quarantine import CELL_WAIT_SECONDS
from tidegate.processor.settings import Claims
from tidegate.processor.storage import Storage
from tidegate.signals.base import WORK, Signals, batch_topic
from tidegate.stores.base import ClaimedBatch, Store

FULL_DISK_SECONDS = 5.0
MISSING_INPUT_SECONDS = 30.0
# Unix seconds as a float are no finer: sums and differences of them may be off by less than that.
CLOCK_GRAIN_SECONDS = 1e-6
INPUT_MISSING = "the input of this batch can't be read: its operator has to restore it"


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeBatchTools:
    """What planning and finalizing work with. With `ends_only` no batch is planned any more."""

    store: Store
    signals: Signals
    keeper: Keeper
    observer: Observer
    storage: Storage
    census: Census
    cut: Cut
    planner: Planner
    closer: Closer
    owner: str
    ends_only: bool


class WholeBatch:
    """Takes one batch after the other, until stopped."""

    def __init__(self, settings: Claims, tools: WholeBatchTools) -> None:
        self._settings = settings
        self._tools = tools

    async def planning(self) -> None:
        """Plan batches. While storage is full none is begun: a plan needs the room of its input."""
        store, owner = self._tools.store, self._tools.owner
        lease_seconds = self._settings.lease_seconds

        async def claim() -> ClaimedBatch | None:
            if self._tools.storage.leaves_claims:
                return None
            return await store.claim_planning(
                owner, lease_seconds=lease_seconds, ending_only=self._tools.ends_only
            )

        await self._each("planning", claim, self._plan)

    async def finalizing(self) -> None:
        """Close the books of batches, also while storage is full: it frees the room of a plan."""
        store, owner = self._tools.store, self._tools.owner
        lease_seconds = self._settings.lease_seconds
        await self._each(
            "finalizing",
            lambda: store.claim_finalizing(owner, lease_seconds=lease_seconds),
            self._tools.closer.finish,
        )

    async def _each(
        self,
        kind: str,
        claim: Callable[[], Awaitable[ClaimedBatch | None]],
        work: Callable[[ClaimedBatch], Awaitable[None]],
    ) -> None:
        """Claim one batch of a kind after the other and work on it, until stopped."""
        tools = self._tools
        await tools.census.wait_until_counted()
        with tools.signals.listen((WORK,)) as listener:
            while not tools.cut.is_set():
                try:
                    held = await claim()
                except StoreUnavailable:
                    held = None
                except StorageFull as error:
                    tools.storage.refused(error)
                    held = None
                if held is None:
                    await listener.wait(self._settings.poll_seconds)
                    continue
                tools.observer.claimed(kind)
                if tools.cut.is_set():
                    # Stopped while the ledger answered: another processor goes on at once.
                    await self._hand_back(held)
                    return
                tools.keeper.hold([held.claim])
                try:
                    await work(held)
                finally:
                    tools.keeper.drop(held.claim)

    async def _plan(self, held: ClaimedBatch) -> None:
        tools = self._tools
        loop = asyncio.get_running_loop()
        started = loop.time()
        wait_seconds, reason = 0.0, None
        try:
            async with tools.cut.bounds():
                if tools.ends_only or self._is_late(held):
                    batch = await tools.planner.end(held)
                else:
                    batch = await tools.planner.plan(held)
        except TimeoutError:
            # Stopped, and not done within the grace time: another processor begins anew, at once.
            pass
        except (StorageFull, CellNotStarted, BlobMissing) as error:
            wait_seconds, reason = self._held_up(held, error)
        except ClaimLost:
            # Cancelled meanwhile (then it is claimed again and ended), or planned by another.
            tools.observer.claim_lost("planning")
        else:
            tools.observer.planned(batch, loop.time() - started)
            if batch.is_terminal:
                tools.observer.batch_ended(batch)
            tools.signals.notify(batch_topic(batch.id))
            tools.signals.notify(WORK)
            return
        await self._hand_back(held, wait_seconds=wait_seconds, reason=reason)

    def _is_late(self, held: ClaimedBatch) -> bool:
        """Say whether the window had closed when the claim was taken, by the ledger's clock."""
        claimed_at = held.claim.expires_at - self._settings.lease_seconds
        return claimed_at + CLOCK_GRAIN_SECONDS >= held.batch.expires_at

    def _held_up(
        self, held: ClaimedBatch, error: StorageFull | CellNotStarted | BlobMissing
    ) -> tuple[float, str | None]:
        """Tell what keeps a batch from being planned.

        Return the seconds until the next try, and why the batch waits in the words that it shows.
        """
        match error:
            case StorageFull():
                self._tools.storage.refused(error)
                return FULL_DISK_SECONDS, None
            case CellNotStarted():
                self._tools.observer.cell_not_started(error)
                return CELL_WAIT_SECONDS, None
            case BlobMissing():
                self._tools.observer.input_missing(held.batch, error)
                return MISSING_INPUT_SECONDS, INPUT_MISSING

    async def _hand_back(
        self, held: ClaimedBatch, *, wait_seconds: float = 0.0, reason: str | None = None
    ) -> None:
        """Let others claim it. Without an answer the claim expires by itself."""
        store = self._tools.store
        with suppress(StoreUnavailable, StorageFull):
            await store.hand_back([held.claim], wait_seconds=wait_seconds)
            if reason is not None and reason != held.batch.waiting_for:
                await store.note_waiting(held.batch.id, reason)
        self._tools.signals.notify(WORK)
