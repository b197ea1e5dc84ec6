"""Work on a whole batch under one claim: planning and finalizing (PROTOCOL 15)."""

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
# After this many poll intervals without an answer, a loop claims without being woken.
MISSED_POLLS = 2.0
MISSING_INPUT_SECONDS = 30.0
# Sums and differences of Unix seconds as floats may be off by less than this.
CLOCK_GRAIN_SECONDS = 1e-6
INPUT_MISSING = "the input of this batch can't be read: the operator has to restore it"


class BatchLoops:
    """Claims and works on one batch after the other, until stopped."""

    def __init__(  # noqa: PLR0913 -- what the loops depend on, given once
        self,
        context: ProcessorContext,
        *,
        planner: Planner,
        renewer: LeaseRenewer,
        gate: WriteGate,
        membership: Membership,
        poller: LedgerPoller,
        wakeups: Wakeups,
        stop: StopDeadline,
    ) -> None:
        self._context = context
        self._settings = context.settings.claims
        self._planner = planner
        self._renewer = renewer
        self._gate = gate
        self._membership = membership
        self._poller = poller
        self._wakeups = wakeups
        self._stop = stop

    async def planning(self) -> None:
        """Plan batches; begin none while storage is full, because a plan needs room."""
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
        """Finalize batches, also while storage is full: it deletes their plans."""
        store, owner = self._context.store, self._context.owner
        lease_seconds = self._settings.lease_seconds
        await self._each(
            "finalizing",
            self._wakeups.finalizing_due,
            lambda: store.claim_finalizing(owner, lease_seconds=lease_seconds),
            self._finalize,
        )

    async def _each(
        self,
        kind: str,
        due: asyncio.Event,
        claim: Callable[[], Awaitable[ClaimedBatch | None]],
        work: Callable[[ClaimedBatch], Awaitable[None]],
    ) -> None:
        """Claim one batch after the other and work on it, until stopped."""
        await self._membership.wait_until_member()
        while True:
            await self._wait_until_due(due)
            if self._stop.is_set():
                return
            due.clear()
            try:
                claimed = await claim()
            except StoreUnavailable:
                continue
            except StorageFull as error:
                self._gate.refused(error)
                continue
            if claimed is None:
                continue
            # There may be more of them: wake another of these loops, or this one again.
            due.set()
            self._context.observer.on_claim(kind)
            if self._stop.is_set():
                # Stopped while the ledger answered: another processor can go on immediately.
                await self._hand_back(claimed)
                return
            self._renewer.add([claimed.claim])
            try:
                await work(claimed)
            finally:
                self._renewer.remove(claimed.claim)

    async def _wait_until_due(self, due: asyncio.Event) -> None:
        """Wait until there is something to claim, or no poll was answered for a while.

        The loop that polls may be waiting for a write, or the ledger may be unavailable.
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

    async def _plan(self, claimed: ClaimedBatch) -> None:
        context = self._context
        loop = asyncio.get_running_loop()
        started = loop.time()
        wait_seconds, reason = 0.0, None
        try:
            async with self._stop.bounds():
                if context.ends_only or self._is_late(claimed):
                    batch = await self._planner.end(claimed)
                else:
                    batch = await self._planner.plan(claimed)
        except TimeoutError:
            # Stopped, and not done within the grace time: another processor can begin immediately.
            pass
        except (StorageFull, SandboxNotStarted, BlobMissing) as error:
            wait_seconds, reason = self._obstacle(claimed, error)
        except ClaimLost:
            # Cancelled meanwhile (it is claimed again and ended), or claimed by another processor.
            context.observer.on_claim_lost("planning")
        else:
            context.observer.on_planned(batch, loop.time() - started)
            if batch.is_terminal:
                context.observer.on_batch_ended(batch)
            context.pubsub.publish(batch_topic(batch.id))
            context.pubsub.publish(WORK)
            return
        await self._hand_back(claimed, wait_seconds=wait_seconds, reason=reason)

    async def _finalize(self, claimed: ClaimedBatch) -> None:
        """Give a batch its terminal status and delete its plan, unless the claim was lost."""
        context = self._context
        at = context.clock.now()
        try:
            batch = await self._gate.retry_until_answered(
                lambda: context.store.finish_batch(claimed.claim, at=at)
            )
        except ClaimLost:
            context.observer.on_claim_lost("finalizing")
            return
        context.observer.on_batch_ended(batch)
        context.pubsub.publish(batch_topic(batch.id))
        if batch.plan_blob is not None:
            # Some file systems need room to remove a file. The collector deletes what stays.
            with suppress(StorageFull):
                await context.blobs.delete(batch.plan_blob)

    def _is_late(self, claimed: ClaimedBatch) -> bool:
        """Return whether the window had closed when the claim was taken, by the ledger's clock."""
        claimed_at = claimed.claim.expires_at - self._settings.lease_seconds
        return claimed_at + CLOCK_GRAIN_SECONDS >= claimed.batch.expires_at

    def _obstacle(
        self, claimed: ClaimedBatch, error: StorageFull | SandboxNotStarted | BlobMissing
    ) -> tuple[float, str | None]:
        """Report why a batch can't be planned now.

        Return the seconds until the next try, and the reason that users see, if any.
        """
        match error:
            case StorageFull():
                self._gate.refused(error)
                return FULL_DISK_SECONDS, None
            case SandboxNotStarted():
                self._context.observer.on_sandbox_not_started(error)
                return SANDBOX_WAIT_SECONDS, None
            case BlobMissing():
                self._context.observer.on_input_missing(claimed.batch, error)
                return MISSING_INPUT_SECONDS, INPUT_MISSING

    async def _hand_back(
        self, claimed: ClaimedBatch, *, wait_seconds: float = 0.0, reason: str | None = None
    ) -> None:
        """Let other processors claim it. If the ledger does not answer, the claim expires."""
        store = self._context.store
        with suppress(StoreUnavailable, StorageFull):
            await store.hand_back([claimed.claim], wait_seconds=wait_seconds)
            if reason is not None and reason != claimed.batch.waiting_for:
                await store.note_waiting(claimed.batch.id, reason)
        self._context.pubsub.publish(WORK)
