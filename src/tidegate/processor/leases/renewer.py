"""The keeper renews what is held, at a third of the lease (PROTOCOL 3).

In production it is a thread with a loop and a ledger connection of its own, so that a busy event
loop can't starve it; in a simulation it is a task. Either way it renews only while the main loop
marks progress: a dead-locked process must not hold its claims for ever. As often, and on the same
condition, it renews its owner's membership; the members share the limits of the model servers.
"""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from typing_extensions import override

from tidegate.domain.claim import Claim, Unit
from tidegate.domain.errors import StorageFull, StoreUnavailable, TidegateError
from tidegate.processor.settings import Claims
from tidegate.stores.base import Store

# How soon a renewal that found no room is tried again: the holder must come before all others, who
# wait for longer than that before they claim (`HOLDERS_FIRST_SECONDS`).
FULL_RETRY_SECONDS = 0.25


class LeaseRenewer(ABC):
    """Knows which claims are held and keeps them alive. All methods are called on the main loop.

    So are `on_lost`, for each claim that another holder has taken, and `on_full`, each time that
    the ledger finds no room: then it is asked again every `FULL_RETRY_SECONDS`. `member` is the
    processor whose membership is renewed as well.
    """

    def __init__(
        self,
        settings: Claims,
        *,
        member: str | None,
        on_lost: Callable[[Claim], None],
        on_full: Callable[[StorageFull], None],
    ) -> None:
        self._settings = settings
        self._member = member
        self._on_lost = on_lost
        self._on_full = on_full
        self._held: dict[Unit, Claim] = {}
        self._stamp = 0.0
        self._refusal: StorageFull | None = None

    def add(self, claims: Sequence[Claim]) -> None:
        """Renew these from now on."""
        for claim in claims:
            self._held[claim.unit] = claim

    def remove(self, claim: Claim) -> None:
        """Renew this one no more. A later claim on the same unit stays."""
        if self._held.get(claim.unit) == claim:
            del self._held[claim.unit]

    def mark_progress(self) -> None:
        """Note that the main loop makes progress."""
        self._stamp = asyncio.get_running_loop().time()

    @abstractmethod
    async def run(self) -> None:
        """Renew until cancelled."""

    def _is_stalled(self, now: float) -> bool:
        return now - self._stamp > self._settings.stall_seconds

    async def _keep_once(self, store: Store, now: float) -> list[Claim]:
        """Renew claims and membership, unless the main loop is stuck; return the lost claims."""
        self._refusal = None
        if self._is_stalled(now):
            return []
        lost = await self._renew(store, list(self._held.values()))
        await self._renew_membership(store)
        return lost

    async def _renew(self, store: Store, claims: list[Claim]) -> list[Claim]:
        """Renew once; return the claims that are lost. No answer means: try again next time."""
        if not claims:
            return []
        try:
            lost = set(await store.renew(claims, lease_seconds=self._settings.lease_seconds))
        except StoreUnavailable:
            return []
        except StorageFull as error:
            self._refusal = error
            return []
        return [claim for claim in claims if claim.unit in lost]

    async def _renew_membership(self, store: Store) -> None:
        """Renew the membership of the owner. No answer means: try again next time."""
        if self._member is not None:
            try:
                await store.renew_membership(
                    self._member, lease_seconds=self._settings.lease_seconds
                )
            except StoreUnavailable:
                pass
            except StorageFull as error:
                self._refusal = error

    @property
    def _pause_seconds(self) -> float:
        """How long to wait until the next time."""
        usual = self._settings.lease_seconds / 3
        return usual if self._refusal is None else min(usual, FULL_RETRY_SECONDS)

    def _tell(self, lost: list[Claim], refusal: StorageFull | None) -> None:
        if refusal is not None:
            self._on_full(refusal)
        for claim in lost:
            # It may have ended or been handed back while the renewal was under way.
            if self._held.get(claim.unit) == claim:
                del self._held[claim.unit]
                self._on_lost(claim)


class TaskLeaseRenewer(LeaseRenewer):
    """A keeper on the main loop: for simulations, where there are no threads."""

    def __init__(
        self,
        settings: Claims,
        store: Store,
        *,
        member: str | None,
        on_lost: Callable[[Claim], None],
        on_full: Callable[[StorageFull], None],
    ) -> None:
        super().__init__(settings, member=member, on_lost=on_lost, on_full=on_full)
        self._store = store

    @override
    async def run(self) -> None:
        """Renew until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._pause_seconds)
            lost = await self._keep_once(self._store, loop.time())
            self._tell(lost, self._refusal)


class ThreadLeaseRenewer(LeaseRenewer):
    """A keeper in a thread of its own. `open_store` makes its own connection to the same ledger."""

    def __init__(
        self,
        settings: Claims,
        open_store: Callable[[], Store],
        *,
        member: str | None,
        on_lost: Callable[[Claim], None],
        on_full: Callable[[StorageFull], None],
    ) -> None:
        super().__init__(settings, member=member, on_lost=on_lost, on_full=on_full)
        self._open_store = open_store
        self._stopping = threading.Event()

    @override
    async def run(self) -> None:
        """Renew until cancelled; the thread has ended when this returns.

        Raises:
            TidegateError: the ledger said something that ends the process, such as `StorageBroken`.
            RuntimeError: the thread died of another error, which is its cause.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[BaseException | None] = loop.create_future()
        thread = threading.Thread(
            target=self._main, args=(loop, ended), name="tidegate keeper", daemon=True
        )
        thread.start()
        try:
            error = await asyncio.shield(ended)
        except asyncio.CancelledError:
            self._stopping.set()
            await ended
            thread.join()
            raise
        if isinstance(error, TidegateError):
            raise error
        raise RuntimeError("The keeper of claims has died.") from error

    def _main(
        self, loop: asyncio.AbstractEventLoop, ended: "asyncio.Future[BaseException | None]"
    ) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._keep(loop))
        except BaseException as caught:  # noqa: BLE001 - the edge of a thread: the error is handed to its owner
            error = caught
        loop.call_soon_threadsafe(ended.set_result, error)

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> None:
        async with self._open_store() as store:
            while not await asyncio.to_thread(self._stopping.wait, self._pause_seconds):
                lost = await self._keep_once(store, loop.time())
                if lost or self._refusal is not None:
                    loop.call_soon_threadsafe(self._tell, lost, self._refusal)
