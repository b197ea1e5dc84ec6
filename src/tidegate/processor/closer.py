"""What is over: batches that are cancelled or past their deadline, shards that go back, books.

Everything here is asked for again and again by the service; each step does what is due now.
"""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, replace

from tidegate.blobs.base import BlobStore
from tidegate.domain.batch import Status
from tidegate.domain.claim import Claim
from tidegate.domain.errors import ClaimLost, StorageFull
from tidegate.processor.dispatcher import Dispatcher
from tidegate.processor.held import Held
from tidegate.processor.insist import insist
from tidegate.processor.keeper import Keeper
from tidegate.processor.ledger_time import LedgerTime
from tidegate.processor.observer import Observer
from tidegate.processor.open_shard import OpenShard, State
from tidegate.processor.run import Run
from tidegate.processor.settings import Settings
from tidegate.processor.storage import Storage
from tidegate.runtime.clock import Clock
from tidegate.signals.base import WORK, Signals, batch_topic
from tidegate.stores.base import ClaimedBatch, Store

REASON_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class CloserTools:
    """What a closer works with."""

    store: Store
    blobs: BlobStore
    signals: Signals
    clock: Clock
    ledger_time: LedgerTime
    keeper: Keeper
    chance: random.Random
    storage: Storage
    observer: Observer


class Closer:
    """Ends, returns and closes."""

    def __init__(
        self, held: Held, dispatcher: Dispatcher, settings: Settings, tools: CloserTools
    ) -> None:
        self._held = held
        self._dispatcher = dispatcher
        self._settings = settings
        self._tools = tools

    # Ends

    async def watch(self) -> None:
        """Stop the batches that were cancelled or whose window has closed, by the ledger's clock.

        Raises:
            StoreUnavailable: the ledger did not answer; windows close by its clock all the same.
        """
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        try:
            states = await self._tools.store.get_states(list(self._held.runs))
            self._tools.ledger_time.hear(states.now, asked_at=asked_at, answered_at=loop.time())
        finally:
            self._end_expired(loop.time())
        for batch_id, status in states.by_id.items():
            current = self._held.runs.get(batch_id)
            if current is not None and status is Status.CANCELLING:
                current.batch = replace(current.batch, status=status)
                self._end(current)

    def _end_expired(self, now: float) -> None:
        """Send nothing of a batch that may be past its window, and end what certainly is."""
        ledger_time = self._tools.ledger_time
        for run in list(self._held.runs.values()):
            run.look_at_clock(ledger_time.at_most(now))
            if ledger_time.at_least(now) >= run.batch.expires_at:
                self._end(run)

    def _end(self, run: Run) -> None:
        """Send nothing more; give what flies its time to land (PROTOCOL 14)."""
        loop = asyncio.get_running_loop()
        for shard in list(run.shards.values()):
            if shard.state in {State.RUNNING, State.RETURNING}:
                shard.state = State.ENDING
                shard.cut_flights(loop.time() + self._settings.ends.drain_seconds)
                self._dispatcher.settle_shard(run, shard)

    # Returns

    def return_all(self, cut_at: float) -> None:
        """Send nothing more of any batch; what flies has until `cut_at` to land."""
        for run in self._held.runs.values():
            for shard in run.shards.values():
                if shard.state is State.RUNNING:
                    shard.state = State.RETURNING
                shard.cut_flights(cut_at)
            run.changed.set()

    def return_unserved(self) -> None:
        """Let others run the lines of endpoints of whose limit no part is ours."""
        for run in self._held.runs.values():
            for shard in run.shards.values():
                served = shard.endpoint is None or shard.endpoint.has_part
                if shard.state is State.RUNNING and not served:
                    shard.state = State.RETURNING
                    run.changed.set()

    async def hand_back(self) -> None:
        """Hand back the shards of which nothing flies and everything is committed."""
        for run in list(self._held.runs.values()):
            for shard in list(run.shards.values()):
                if shard.state is State.RETURNING and shard.is_settled:
                    run.close(shard, State.CLOSED)
                    await self._return(shard)
                    # Only now: a claim that expires meanwhile would count as lost by a crash.
                    self._tools.keeper.drop(shard.claim)
                    self._tools.signals.notify(WORK)

    async def _return(self, shard: OpenShard) -> None:
        endpoint = shard.endpoint
        wait = endpoint.pause_left(asyncio.get_running_loop().time()) if endpoint else 0.0
        tools = self._tools

        async def ask() -> None:
            # The shard loop waits here as long as the ledger refuses: it is not dead-locked, and
            # what it holds besides must not expire.
            tools.keeper.stamp()
            await tools.store.hand_back([shard.claim], wait_seconds=wait)

        await insist(ask, tools.chance, tools.storage)

    def lose(self, claim: Claim) -> None:
        """Drop a shard that another processor holds now."""
        run = self._held.runs.get(claim.unit.batch_id)
        shard = run.shards.get(claim.unit.number) if run else None
        if run is not None and shard is not None and shard.claim == claim:
            self._tools.observer.claim_lost("shard")
            run.close(shard, State.LOST)

    # Books

    async def finish(self, held: ClaimedBatch) -> None:
        """Close the books of a batch and remove its plan."""
        tools = self._tools
        at = tools.clock.now()
        try:
            batch = await insist(
                lambda: tools.store.finish_batch(held.claim, at=at), tools.chance, tools.storage
            )
        except ClaimLost:
            tools.observer.claim_lost("finalizing")
            return
        tools.observer.batch_ended(batch)
        tools.signals.notify(batch_topic(batch.id))
        if batch.plan_blob is not None:
            # Some file systems need room to remove a file. What stays is the collector's.
            with suppress(StorageFull):
                await tools.blobs.delete(batch.plan_blob)

    # Words

    async def explain(self) -> None:
        """Let each batch say why it waits, when that has changed."""
        for run in list(self._held.runs.values()):
            reason = _reason(run)
            if run.shards and reason != run.noted_reason:
                await self._tools.store.note_waiting(run.id, reason)
                run.noted_reason = reason


def _reason(run: Run) -> str | None:
    found = {
        f"{shard.endpoint.name}: {shard.endpoint.reason}"
        for shard in run.shards.values()
        if shard.endpoint is not None and shard.endpoint.reason
    }
    return "; ".join(sorted(found))[:REASON_CHARACTERS_MAX] or None
