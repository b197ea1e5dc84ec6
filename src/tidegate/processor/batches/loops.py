"""Work on a whole batch under one claim: planning it, and closing its books."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tidegate.domain.errors import (
    BlobMissing,
    ClaimLost,
    SandboxNotStarted,
    StorageFull,
    StoreUnavailable,
)
from tidegate.domain.ledger.values import ClaimedBatch
from tidegate.processor.batches.finalizer import Finalizer
from tidegate.processor.batches.planner import Planner
from tidegate.processor.context import ProcessorContext
from tidegate.processor.dispatch.quarantine import SANDBOX_WAIT_SECONDS
from tidegate.processor.leases.membership import Membership
from tidegate.processor.leases.poller import LedgerPoller
from tidegate.processor.leases.renewer import LeaseRenewer
from tidegate.processor.stop_deadline import StopDeadline
from tidegate.processor.wakeups import Wakeups
from tidegate.processor.write_gate import WriteGate
from tidegate.pubsub.base import WORK, batch_topic

FULL_DISK_SECONDS = 5.0
# After this many polls without an answer a loop asks for itself.
MISSED_POLLS = 2.0
MISSING_INPUT_SECONDS = 30.0
# Unix seconds as a float are no finer: sums and differences of them may be off by less than that.
CLOCK_GRAIN_SECONDS = 1e-6
INPUT_MISSING = "the input of this batch can't be read: its operator has to restore it"


class BatchLoops:
    """Takes one batch after the other, until stopped."""

    def __init__(  # noqa: PLR0913 -- what the loops depend on, given once
        self,
        context: ProcessorContext,
        *,
        planner: Planner,
        finalizer: Finalizer,
        renewer: LeaseRenewer,
        gate: WriteGate,
        census: Membership,
        poller: LedgerPoller,
        wakeups: Wakeups,
        stop: StopDeadline,
    ) -> None:
        self._context = context
        self._settings = context.settings.claims
        self._planner = planner
        self._finalizer = finalizer
        self._renewer = renewer
        self._gate = gate
        self._census = census
        self._poller = poller
        self._wakeups = wakeups
        self._stop = stop

    async def planning(self) -> None:
        """Plan batches. While storage is full none is begun: a plan needs the room of its input."""
        store, owner = self._context.store, self._context.owner
        lease_seconds = self._settings.lease_seconds

        async def claim() -> ClaimedBatch | None:
            if self._gate.pauses_claiming:
                return None
            return await store.claim_planning(
                owner, lease_seconds=lease_seconds, ending_only=self._context.ends_only
            )

        await self._each("planning", self._wakeups.planning_due, claim, self._plan)

    async def finalizing(self) -> None:
        """Close the books of batches, also while storage is full: it frees the room of a plan."""
        store, owner = self._context.store, self._context.owner
        lease_seconds = self._settings.lease_seconds
        await self._each(
            "finalizing",
            self._wakeups.finalizing_due,
            lambda: store.claim_finalizing(owner, lease_seconds=lease_seconds),
            self._finalizer.finish,
        )

    async def _each(
        self,
        kind: str,
        due: asyncio.Event,
        claim: Callable[[], Awaitable[ClaimedBatch | None]],
        work: Callable[[ClaimedBatch], Awaitable[None]],
    ) -> None:
        """Claim one batch of a kind after the other and work on it, until stopped."""
        await self._census.wait_until_member()
        while True:
            await self._until(due)
            if self._stop.is_set():
                return
            due.clear()
            try:
                held = await claim()
            except StoreUnavailable:
                continue
            except StorageFull as error:
                self._gate.refused(error)
                continue
            if held is None:
                continue
            # There may be more of them: another of these loops, or this one, claims again.
            due.set()
            self._context.observer.on_claim(kind)
            if self._stop.is_set():
                # Stopped while the ledger answered: another processor can go on immediately.
                await self._hand_back(held)
                return
            self._renewer.add([held.claim])
            try:
                await work(held)
            finally:
                self._renewer.remove(held.claim)

    async def _until(self, due: asyncio.Event) -> None:
        """Wait until there is something to claim, or no poll was answered for a while.

        The loop that polls may be waiting for a write, or the ledger may be away.
        """
        seconds = self._settings.poll_seconds
        while not due.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await due.wait()
            except TimeoutError:
                now = asyncio.get_running_loop().time()
                if now - self._poller.answered_at > MISSED_POLLS * seconds:
                    return

    async def _plan(self, held: ClaimedBatch) -> None:
        context = self._context
        loop = asyncio.get_running_loop()
        started = loop.time()
        wait_seconds, reason = 0.0, None
        try:
            async with self._stop.bounds():
                if context.ends_only or self._is_late(held):
                    batch = await self._planner.end(held)
                else:
                    batch = await self._planner.plan(held)
        except TimeoutError:
            # Stopped, and not done within the grace time: another processor begins anew, at once.
            pass
        except (StorageFull, SandboxNotStarted, BlobMissing) as error:
            wait_seconds, reason = self._held_up(held, error)
        except ClaimLost:
            # Cancelled meanwhile (then it is claimed again and ended), or planned by another.
            context.observer.on_claim_lost("planning")
        else:
            context.observer.on_planned(batch, loop.time() - started)
            if batch.is_terminal:
                context.observer.on_batch_ended(batch)
            context.pubsub.publish(batch_topic(batch.id))
            context.pubsub.publish(WORK)
            return
        await self._hand_back(held, wait_seconds=wait_seconds, reason=reason)

    def _is_late(self, held: ClaimedBatch) -> bool:
        """Say whether the window had closed when the claim was taken, by the ledger's clock."""
        claimed_at = held.claim.expires_at - self._settings.lease_seconds
        return claimed_at + CLOCK_GRAIN_SECONDS >= held.batch.expires_at

    def _held_up(
        self, held: ClaimedBatch, error: StorageFull | SandboxNotStarted | BlobMissing
    ) -> tuple[float, str | None]:
        """Tell what keeps a batch from being planned.

        Return the seconds until the next try, and why the batch waits in the words that it shows.
        """
        match error:
            case StorageFull():
                self._gate.refused(error)
                return FULL_DISK_SECONDS, None
            case SandboxNotStarted():
                self._context.observer.on_sandbox_not_started(error)
                return SANDBOX_WAIT_SECONDS, None
            case BlobMissing():
                self._context.observer.on_input_missing(held.batch, error)
                return MISSING_INPUT_SECONDS, INPUT_MISSING

    async def _hand_back(
        self, held: ClaimedBatch, *, wait_seconds: float = 0.0, reason: str | None = None
    ) -> None:
        """Let others claim it. Without an answer the claim expires by itself."""
        store = self._context.store
        with suppress(StoreUnavailable, StorageFull):
            await store.hand_back([held.claim], wait_seconds=wait_seconds)
            if reason is not None and reason != held.batch.waiting_for:
                await store.note_waiting(held.batch.id, reason)
        self._context.pubsub.publish(WORK)
