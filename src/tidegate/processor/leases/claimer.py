"""Which shards this processor claims, and which it hands back for others (PROTOCOL 4)."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence

from tidegate.domain.claim import Claim
from tidegate.domain.ledger.values import Want
from tidegate.domain.share import Offer
from tidegate.endpoints.endpoint import Endpoint
from tidegate.processor.batches.waiting import WaitingReasons
from tidegate.processor.context import ProcessorContext
from tidegate.processor.dispatch.open_batch import OpenBatch, OpenBatches
from tidegate.processor.dispatch.open_shard import OpenShard, OpenShardState
from tidegate.processor.dispatch.quarantine import SANDBOX_WAIT_SECONDS
from tidegate.processor.leases.opener import ShardOpener
from tidegate.processor.leases.poller import OFFERS_MAX, LedgerPoller
from tidegate.processor.stop_deadline import StopDeadline

ENDING_SHARDS_AT_ONCE = 4
LINES_AHEAD_SECONDS = 0.5
# How often to claim again immediately if a granted shard waits for a sandbox.
CLAIMS_AT_ONCE = 20
TURNS_WITH_ATTEMPTS = 12
_RATE_WEIGHT = 0.3


class Claimer:
    """Claims shards while lines run low, and hands back those that must wait."""

    def __init__(
        self,
        context: ProcessorContext,
        *,
        open_batches: OpenBatches,
        opener: ShardOpener,
        poller: LedgerPoller,
        reasons: WaitingReasons,
        stop: StopDeadline,
    ) -> None:
        self._context = context
        self._open_batches = open_batches
        self._opener = opener
        self._poller = poller
        self._reasons = reasons
        self._stop = stop
        self._measured_at: float | None = None
        self._yielded_at: dict[str, float] = {}

    async def claim(self, offers: Sequence[Offer]) -> None:
        """Claim and open the offered shards that are wanted here.

        A granted shard in quarantine for which no sandbox is free is handed back, and the next one
        is claimed immediately, so that other shards do not wait for a sandbox.

        Raises:
            StoreUnavailable: the ledger did not answer; claims that it may have granted expire.
        """
        for _ in range(CLAIMS_AT_ONCE):
            if not await self._claim_once(offers):
                return
            offers = (await self._poller.fetch()).offers

    async def _claim_once(self, offers: Sequence[Offer]) -> bool:
        """Claim what is wanted; return whether a shard was handed back for want of a sandbox."""
        now = asyncio.get_running_loop().time()
        await self._reasons.note_offered(offers, now)
        offers = self._put_yielded_last(await self._skip_unusable_models(offers, now))
        ending = {offer.batch_id for offer in offers if offer.ending}
        slots = self._context.settings.limits.open_shards_max - self._open_batches.open_shards
        wants = self._choose(offers, slots, now)
        if not wants and slots <= 0:
            self._free_slot(offers, now)
        if not wants or self._stop.is_set():
            return False
        granted = await self._context.store.claim_shards(
            self._context.owner, wants, lease_seconds=self._context.settings.claims.lease_seconds
        )
        waiting = await self._opener.open_all(granted, ending)
        if not waiting:
            return False
        # If a sandbox will be free soon, offer the shards again soon, before others are claimed.
        soon = self._free_sandbox(waiting)
        wait = self._context.settings.claims.poll_seconds if soon else SANDBOX_WAIT_SECONDS
        await self._context.store.hand_back(waiting, wait_seconds=wait)
        return True

    async def _skip_unusable_models(self, offers: Sequence[Offer], now: float) -> Sequence[Offer]:
        """Return these offers; those of other models if a full page has none to run here."""
        skipped: set[str] = set()
        while len(offers) >= OFFERS_MAX and not any(
            self._shards_wanted(one, now) for one in offers
        ):
            skipped |= {offer.model for offer in offers}
            offers = (await self._poller.fetch(skipped)).offers
        return offers

    def _free_sandbox(self, waiting: Sequence[Claim]) -> bool:
        """Let a batch that had its turn give way to one that has no sandbox.

        Return whether a sandbox will be free soon.
        """
        now = asyncio.get_running_loop().time()
        alone = [
            shard
            for open_batch in self._open_batches.by_id.values()
            for shard in open_batch.shards.values()
            if shard.is_quarantined
        ]
        if any(shard.is_leaving(now) for shard in alone):
            return True
        running = [shard for shard in alone if shard.state is OpenShardState.RUNNING]
        served = {shard.claim.unit.batch_id for shard in running}
        if all(claim.unit.batch_id in served for claim in waiting):
            return False
        victim = self._longest_turn(running, now)
        if victim is None:
            return False
        self._yield_slot(victim, now)
        return True

    # Choosing

    def _choose(self, offers: Sequence[Offer], slots: int, now: float) -> list[Want]:
        """Give every batch one shard before any gets a second, then as many as each lacks."""
        missing = [(offer, self._shards_wanted(offer, now)) for offer in offers]
        limits: dict[tuple[str, str], int] = {}
        for allowed in (1, max((count for _, count in missing), default=0)):
            for offer, count in missing:
                key = (offer.batch_id, offer.model)
                more = min(slots, min(allowed, count) - limits.get(key, 0))
                if more > 0:
                    limits[key] = limits.get(key, 0) + more
                    slots -= more
        return [
            Want(batch_id=batch_id, model=model, limit=limit)
            for (batch_id, model), limit in limits.items()
        ]

    def _shards_wanted(self, offer: Offer, now: float) -> int:
        """Return how many shards of the offer are wanted here."""
        if self._opener.lacks_plan(offer.batch_id, now):
            return 0
        endpoint = self._context.routes.find(offer.model)
        if offer.ending or endpoint is None:
            return min(offer.shards, ENDING_SHARDS_AT_ONCE)
        if endpoint.is_paused(now) or not endpoint.has_part:
            return 0
        open_batch = self._open_batches.by_id.get(offer.batch_id)
        lines = open_batch.fresh(offer.model) if open_batch else 0
        wanted = self._lines_wanted(open_batch, offer.model, endpoint)
        if lines >= wanted:
            return 0
        shard_lines = self._context.settings.planning.shard_lines_max
        return min(offer.shards, math.ceil((wanted - lines) / shard_lines))

    def _lines_wanted(self, open_batch: OpenBatch | None, model: str, endpoint: Endpoint) -> float:
        """Return how many lines should be ready: two windows, or half a second at this pace."""
        rate = open_batch.rate.get(model, 0.0) if open_batch else 0.0
        return max(2.0 * endpoint.window, rate * LINES_AHEAD_SECONDS)

    def measure(self) -> None:
        """Measure the pace of each model of each batch since the last call."""
        now = asyncio.get_running_loop().time()
        since, self._measured_at = self._measured_at, now
        if since is None or now <= since:
            return
        for open_batch in self._open_batches.by_id.values():
            for model in open_batch.by_model:
                pace = open_batch.finished.pop(model, 0) / (now - since)
                old = open_batch.rate.get(model, pace)
                open_batch.rate[model] = old + _RATE_WEIGHT * (pace - old)

    # Handing back

    def _put_yielded_last(self, offers: Sequence[Offer]) -> list[Offer]:
        """Order the offers of batches that gave way last, the latest at the end."""
        # A batch that still holds its shard is not on offer yet, and must not be forgotten.
        known = {offer.batch_id for offer in offers} | self._open_batches.by_id.keys()
        self._yielded_at = {
            batch_id: at for batch_id, at in self._yielded_at.items() if batch_id in known
        }
        return sorted(offers, key=lambda offer: self._yielded_at.get(offer.batch_id, -math.inf))

    def _free_slot(self, offers: Sequence[Offer], now: float) -> None:
        """Free a slot of an idle shard, or of one whose turn is over if another batch has none.

        One at a time: the next is chosen when this slot is free, or freeing it takes too long.
        """
        shards = [
            shard
            for open_batch in self._open_batches.by_id.values()
            for shard in open_batch.shards.values()
        ]
        if any(shard.is_leaving(now) for shard in shards):
            return
        running = [shard for shard in shards if shard.state is OpenShardState.RUNNING]
        victim = self._idle_shard(running, now)
        if victim is None and any(self._is_waiting(offer, now) for offer in offers):
            victim = self._longest_turn(running, now)
        if victim is not None:
            self._yield_slot(victim, now)

    def _yield_slot(self, victim: OpenShard, now: float) -> None:
        # Attempts in flight may finish: if they were cancelled at each turn, a line that takes
        # longer than a turn would never get its result.
        victim.state = OpenShardState.RETURNING
        victim.return_due = now + self._context.settings.drain.drain_seconds
        batch_id = victim.claim.unit.batch_id
        self._yielded_at[batch_id] = now
        self._open_batches.by_id[batch_id].changed.set()

    def _is_waiting(self, offer: Offer, now: float) -> bool:
        return (
            offer.batch_id not in self._open_batches.by_id and self._shards_wanted(offer, now) > 0
        )

    def _idle_shard(self, running: Sequence[OpenShard], now: float) -> OpenShard | None:
        for shard in running:
            if shard.endpoint is not None and shard.endpoint.is_paused(now) and shard.is_settled:
                return shard
        return None

    def _longest_turn(self, running: Sequence[OpenShard], now: float) -> OpenShard | None:
        """Return a shard of a batch that holds several, or the one whose turn is over.

        Failed attempts are counted only in this processor, so a shard that has some stays longer,
        until its lines have used up their attempts.
        """
        turn_seconds = self._context.settings.limits.turn_seconds
        several = Counter(shard.claim.unit.batch_id for shard in running)
        ripe = [
            shard
            for shard in running
            if now - shard.opened_at
            >= turn_seconds * (TURNS_WITH_ATTEMPTS if shard.attempts else 1)
            or (several[shard.claim.unit.batch_id] > 1 and not shard.attempts)
        ]
        if not ripe:
            return None
        return min(
            ripe,
            key=lambda shard: (
                several[shard.claim.unit.batch_id] <= 1,
                len(shard.in_flight),
                shard.opened_at,
            ),
        )
