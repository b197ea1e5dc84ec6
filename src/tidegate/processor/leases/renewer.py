"""Renews the claims and the membership of a processor, at a third of the lease (PROTOCOL 3).

In production it is a thread with its own loop and ledger connection, so that a busy event loop
can't starve it; in a simulation it is a task. Either way it renews only while the main loop marks
progress, because a deadlocked process must not hold its claims indefinitely.
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

# How soon a renewal that found no room is tried again. Other processors wait for longer before they
# claim (`HOLDERS_FIRST_SECONDS`), so the holder comes first.
FULL_RETRY_SECONDS = 0.25


class LeaseRenewer(ABC):
    """Knows the claims of a processor and renews them. All methods are called on the main loop.

    So are `on_lost`, for each claim that another holder has taken, and `on_full`, each time the
    ledger finds no room; then it retries every `FULL_RETRY_SECONDS`. `member` is the processor
    whose membership is renewed as well, if any. `open_store` returns the ledger.
    """

    def __init__(
        self,
        settings: Claims,
        open_store: Callable[[], Store],
        *,
        member: str | None,
        on_lost: Callable[[Claim], None],
        on_full: Callable[[StorageFull], None],
    ) -> None:
        self._settings = settings
        self._open_store = open_store
        self._member = member
        self._on_lost = on_lost
        self._on_full = on_full
        self._claims: dict[Unit, Claim] = {}
        self._progress_at = 0.0
        self._refusal: StorageFull | None = None

    def add(self, claims: Sequence[Claim]) -> None:
        """Renew these claims from now on."""
        for claim in claims:
            self._claims[claim.unit] = claim

    def remove(self, claim: Claim) -> None:
        """Stop renewing this claim. A later claim on the same unit stays."""
        if self._claims.get(claim.unit) == claim:
            del self._claims[claim.unit]

    def mark_progress(self) -> None:
        """Record that the main loop makes progress."""
        self._progress_at = asyncio.get_running_loop().time()

    @abstractmethod
    async def run(self) -> None:
        """Renew until cancelled."""

    def _is_stalled(self, now: float) -> bool:
        return now - self._progress_at > self._settings.stall_seconds

    async def _renew_all(self, store: Store, now: float) -> list[Claim]:
        """Renew claims and membership, unless the main loop is stuck; return the lost claims."""
        self._refusal = None
        if self._is_stalled(now):
            return []
        lost = await self._renew(store, list(self._claims.values()))
        await self._renew_membership(store)
        return lost

    async def _renew(self, store: Store, claims: list[Claim]) -> list[Claim]:
        """Renew the claims; return those that are lost. Without an answer, none is."""
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
        """Renew the membership; without an answer it is tried again next time."""
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
        """How long to wait before the next renewal."""
        usual = self._settings.lease_seconds / 3
        return usual if self._refusal is None else min(usual, FULL_RETRY_SECONDS)

    def _report(self, lost: list[Claim], refusal: StorageFull | None) -> None:
        if refusal is not None:
            self._on_full(refusal)
        for claim in lost:
            # It may have ended or been handed back while the renewal was under way.
            if self._claims.get(claim.unit) == claim:
                del self._claims[claim.unit]
                self._on_lost(claim)


class TaskLeaseRenewer(LeaseRenewer):
    """A lease renewer on the main loop: for simulations, which have no threads."""

    @override
    async def run(self) -> None:
        """Renew until cancelled."""
        loop, store = asyncio.get_running_loop(), self._open_store()
        while True:
            await asyncio.sleep(self._pause_seconds)
            lost = await self._renew_all(store, loop.time())
            self._report(lost, self._refusal)


class ThreadLeaseRenewer(LeaseRenewer):
    """A lease renewer in its own thread, for which `open_store` opens another connection."""

    @override
    async def run(self) -> None:
        """Renew until cancelled; the thread has ended when this returns.

        Raises:
            TidegateError: an error that ends the process, such as `StorageBroken`.
            RuntimeError: the thread died of another error, which is its cause.
        """
        loop = asyncio.get_running_loop()
        stopping = threading.Event()
        ended: asyncio.Future[BaseException | None] = loop.create_future()
        thread = threading.Thread(
            target=self._main,
            args=(loop, stopping, ended),
            name="tidegate lease renewer",
            daemon=True,
        )
        thread.start()
        try:
            error = await asyncio.shield(ended)
        except asyncio.CancelledError:
            stopping.set()
            await ended
            thread.join()
            raise
        if isinstance(error, TidegateError):
            raise error
        raise RuntimeError("The lease renewer has died.") from error

    def _main(
        self,
        loop: asyncio.AbstractEventLoop,
        stopping: threading.Event,
        ended: "asyncio.Future[BaseException | None]",
    ) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._renew_loop(loop, stopping))
        except BaseException as caught:  # noqa: BLE001 - the end of a thread: its owner raises the error
            error = caught
        loop.call_soon_threadsafe(ended.set_result, error)

    async def _renew_loop(self, loop: asyncio.AbstractEventLoop, stopping: threading.Event) -> None:
        async with self._open_store() as store:
            while not await asyncio.to_thread(stopping.wait, self._pause_seconds):
                lost = await self._renew_all(store, loop.time())
                if lost or self._refusal is not None:
                    loop.call_soon_threadsafe(self._report, lost, self._refusal)
