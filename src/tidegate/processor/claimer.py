"""Which shards this processor opens, and which it gives back (PROTOCOL 4)."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.blobs.base import BlobStore
from tidegate.domain.batch import Batch
from tidegate.domain.claim import Claim
from tidegate.domain.errors import BlobMissing, StorageFull
from tidegate.domain.share import Offer
from tidegate.processor.dispatcher import Dispatcher
from tidegate.processor.endpoints import Endpoint, Routes
from tidegate.processor.held import Held
from tidegate.processor.keeper import Keeper
from tidegate.processor.ledger_time import LedgerTime
from tidegate.processor.observer import Observer
from tidegate.processor.open_shard import OpenShard, State
from tidegate.processor.quarantine import CELL_WAIT_SECONDS, Quarantine
from tidegate.processor.run import Run
from tidegate.processor.settings import Settings
from tidegate.stores.base import ClaimedShard, ClaimedShards, Store, Want
from tidegate.wire.plan_format import unpack_all

ENDING_SHARDS_AT_ONCE = 4
LINES_AHEAD_SECONDS = 0.5
MISSING_PLAN_SECONDS = 30.0
PLAN_MISSING = "the plan of this batch can't be read: its operator has to restore it"
NOTES_AT_ONCE = 20
OFFERS_MAX = 256
# How often to claim again at once where what was granted waits for a cell.
CLAIMS_AT_ONCE = 20
NOTED_MAX = 10_000
TURNS_WITH_ATTEMPTS = 12
_RATE_WEIGHT = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimerTools:
    """What a claimer works with. With `ends_only` it claims nothing whose lines may still run."""

    store: Store
    blobs: BlobStore
    routes: Routes
    ledger_time: LedgerTime
    keeper: Keeper
    quarantine: Quarantine
    observer: Observer
    owner: str
    ends_only: bool


class Claimer:
    """Opens shards while lines run low, in the order of shares, and hands back what must wait."""

    def __init__(
        self, held: Held, dispatcher: Dispatcher, settings: Settings, tools: ClaimerTools
    ) -> None:
        self._held = held
        self._dispatcher = dispatcher
        self._settings = settings
        self._tools = tools
        self.stopping = False
        self._measured_at: float | None = None
        self._noted: dict[str, str] = {}
        self._over: set[str] = set()
        self._gave_way_at: dict[str, float] = {}
        self._planless_until: dict[str, float] = {}

    async def claim(self) -> None:
        """Look at what is on offer, and open what is wanted here.

        Where a shard in quarantine was granted for which no cell is free it goes back, and the next
        one is claimed at once: whatever lies behind it must not wait for a cell.

        Raises:
            StoreUnavailable: the ledger did not answer; what it may have given expires by itself.
        """
        for _ in range(CLAIMS_AT_ONCE):
            if not await self._claim_once():
                return

    async def _claim_once(self) -> bool:
        """Claim what is wanted; say whether some of it had to go back for want of a cell."""
        now = asyncio.get_running_loop().time()
        offers = self._in_turn(await self._look(now))
        self._over = {offer.batch_id for offer in offers if offer.ending}
        await self._explain(offers, now)
        slots = self._settings.valves.open_shards_max - self._held.open_shards
        wants = self._choose(offers, slots, now)
        if not wants and slots <= 0:
            self._make_room(offers, now)
        if not wants or self.stopping:
            return False
        granted = await self._tools.store.claim_shards(
            self._tools.owner, wants, lease_seconds=self._settings.claims.lease_seconds
        )
        waiting = await self._open_all(granted)
        if not waiting:
            return False
        # A batch that is let in soon looks again soon, so that it finds the cell before others do.
        wait = self._settings.claims.poll_seconds if self._free_cell(waiting) else CELL_WAIT_SECONDS
        await self._tools.store.hand_back(waiting, wait_seconds=wait)
        return True

    async def _look(self, now: float) -> list[Offer]:
        """Return what is on offer, at most `OFFERS_MAX`.

        If a full page offers nothing that could run here, look past the models without room.
        """
        skipped: set[str] = set()
        while True:
            found = await self._tools.store.poll(
                self._tools.owner,
                offers_max=OFFERS_MAX,
                skip_models=skipped,
                ending_only=self._tools.ends_only,
            )
            offers = list(found.offers)
            more = {offer.model for offer in offers} - skipped
            if len(offers) < OFFERS_MAX or any(self._missing(offer, now) for offer in offers):
                return offers
            skipped |= more

    def _free_cell(self, waiting: Sequence[Claim]) -> bool:
        """Where a batch has no cell though others have had their turn, let one of these give way.

        Say whether a cell is about to be free.
        """
        now = asyncio.get_running_loop().time()
        alone = [
            shard
            for run in self._held.runs.values()
            for shard in run.shards.values()
            if shard.is_quarantined
        ]
        if any(shard.is_leaving(now) for shard in alone):
            return True
        running = [shard for shard in alone if shard.state is State.RUNNING]
        served = {shard.claim.unit.batch_id for shard in running}
        if all(claim.unit.batch_id in served for claim in waiting):
            return False
        victim = self._longest_turn(running, now)
        if victim is None:
            return False
        self._give_way(victim, now)
        return True

    async def _explain(self, offers: Sequence[Offer], now: float) -> None:
        """Let the batches of which nothing is opened, because a server is paused, say so.

        At most `NOTES_AT_ONCE` of them for each look: each note is a write.
        """
        reasons = {
            offer.batch_id: f"{endpoint.name}: {endpoint.reason}"
            for offer in offers
            if offer.batch_id not in self._held.runs
            and (endpoint := self._tools.routes.find(offer.model)) is not None
            and endpoint.was_paused_lately(now)
        }
        # A batch that is not on offer now may be handed back with a pause, or be run elsewhere:
        # whoever opens it next corrects what it says.
        over = {offer.batch_id for offer in offers} & (self._noted.keys() - reasons.keys())
        over -= self._held.runs.keys()
        changed: list[tuple[str, str | None]] = [(batch_id, None) for batch_id in sorted(over)]
        changed += [item for item in reasons.items() if self._noted.get(item[0]) != item[1]]
        for batch_id, reason in changed[:NOTES_AT_ONCE]:
            await self._tools.store.note_waiting(batch_id, reason)
            if reason is None:
                del self._noted[batch_id]
            elif len(self._noted) < NOTED_MAX:
                self._noted[batch_id] = reason

    # Choosing

    def _choose(self, offers: Sequence[Offer], slots: int, now: float) -> list[Want]:
        """Give every batch one shard before any gets a second, then what each lacks."""
        missing = [(offer, self._missing(offer, now)) for offer in offers]
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

    def _missing(self, offer: Offer, now: float) -> int:
        """Return how many shards of the offer are wanted here."""
        if now < self._planless_until.get(offer.batch_id, -math.inf):
            return 0
        endpoint = self._tools.routes.find(offer.model)
        if offer.ending or endpoint is None:
            return min(offer.shards, ENDING_SHARDS_AT_ONCE)
        if endpoint.is_paused(now) or not endpoint.has_part:
            return 0
        run = self._held.runs.get(offer.batch_id)
        lines = run.fresh(offer.model) if run else 0
        wanted = self._ahead(run, offer.model, endpoint)
        if lines >= wanted:
            return 0
        shard_lines = self._settings.planning.shard_lines_max
        return min(offer.shards, math.ceil((wanted - lines) / shard_lines))

    def _ahead(self, run: Run | None, model: str, endpoint: Endpoint) -> float:
        """Return how many lines should lie ready: two windows, or half a second at this pace."""
        rate = run.rate.get(model, 0.0) if run else 0.0
        return max(2.0 * endpoint.window, rate * LINES_AHEAD_SECONDS)

    def measure(self) -> None:
        """Note the pace of each model of each batch since the last call."""
        now = asyncio.get_running_loop().time()
        since, self._measured_at = self._measured_at, now
        if since is None or now <= since:
            return
        for run in self._held.runs.values():
            for model in run.by_model:
                pace = run.finished.pop(model, 0) / (now - since)
                old = run.rate.get(model, pace)
                run.rate[model] = old + _RATE_WEIGHT * (pace - old)

    # Opening

    async def _open_all(self, granted: Sequence[ClaimedShards]) -> list[Claim]:
        """Open what was granted; return the claims for which no cell is free.

        What can't be opened is not renewed, so that others get it.

        Raises:
            StorageFull: a plan could not be read for now; what is not open was handed back.
        """
        keeper = self._tools.keeper
        waiting = [(claimed.batch, held) for claimed in granted for held in claimed.shards]
        without_cell: list[Claim] = []
        keeper.hold([held.claim for _, held in waiting])
        try:
            while waiting:
                batch, held = waiting[0]
                self._tools.observer.claimed("shard")
                if self._needs_cell(batch, held) and self._tools.quarantine.room <= 0:
                    keeper.drop(held.claim)
                    without_cell.append(held.claim)
                else:
                    await self._open(batch, held)
                waiting.pop(0)
        except StorageFull:
            # Too many open files, as a rule. Left to expire, each would count as lost by a crash.
            over = [*without_cell, *(held.claim for _, held in waiting)]
            await self._tools.store.hand_back(over)
            raise
        finally:
            for _, held in waiting:
                keeper.drop(held.claim)
        return without_cell

    def _needs_cell(self, batch: Batch, held: ClaimedShard) -> bool:
        """Say whether its lines are to be sent, each alone."""
        if not held.shard.is_quarantined or self.stopping or self._is_over(batch):
            return False
        return self._tools.routes.find(held.shard.plan.model) is not None

    async def _open(self, batch: Batch, claimed: ClaimedShard) -> None:
        plan = claimed.shard.plan
        assert batch.plan_blob is not None, batch.id
        assert batch.id in self._over or not self._tools.ends_only, "its lines may still run"
        try:
            data = await self._tools.blobs.read(batch.plan_blob, plan.offset, plan.length)
        except BlobMissing:
            await self._give_back(batch, claimed)
            return
        loop = asyncio.get_running_loop()
        endpoint = self._tools.routes.find(plan.model)
        shard = OpenShard(claimed, list(unpack_all(data)), endpoint=endpoint, opened_at=loop.time())
        run = self._held.open(batch, shard)
        run.look_at_clock(self._tools.ledger_time.at_most(loop.time()))
        if self.stopping:
            shard.state = State.RETURNING
        elif self._is_over(batch):
            shard.state = State.ENDING
            self._dispatcher.settle_shard(run, shard)
        elif endpoint is None:
            reject_all(run, shard)
        elif shard.is_quarantined:
            self._quarantine_shard(run, shard)
        self._dispatcher.pump()

    def _quarantine_shard(self, run: Run, shard: OpenShard) -> None:
        """Let the lines of a shard run alone, where a cell is still free for it."""
        quarantine = self._tools.quarantine
        if quarantine.room > 0:
            quarantine.admit(shard)
            quarantine.blame_known(run, shard)
        else:
            shard.state = State.RETURNING

    def _is_over(self, batch: Batch) -> bool:
        # Where the ledger says so, what we know of its clock may still be behind: what was claimed
        # to be ended would be handed back for want of room, and claimed again at once.
        if batch.is_cancelling or batch.id in self._over:
            return True
        now = asyncio.get_running_loop().time()
        return self._tools.ledger_time.at_least(now) >= batch.expires_at

    async def _give_back(self, batch: Batch, claimed: ClaimedShard) -> None:
        # Either the batch ended while we looked (then the claim is void), or the plan is gone: then
        # its lines wait until the blob is restored, and must not be claimed in a tight loop. What
        # has to be ended is on offer again at once, so that we have to remember it ourselves.
        now = asyncio.get_running_loop().time()
        waits = {key: until for key, until in self._planless_until.items() if until > now}
        self._planless_until = {**waits, batch.id: now + MISSING_PLAN_SECONDS}
        self._tools.keeper.drop(claimed.claim)
        self._tools.observer.plan_missing(batch)
        await self._tools.store.hand_back([claimed.claim], wait_seconds=MISSING_PLAN_SECONDS)
        await self._tools.store.note_waiting(batch.id, PLAN_MISSING)

    # Giving back

    def _in_turn(self, offers: Sequence[Offer]) -> list[Offer]:
        """Put batches that had to give way behind those they gave way to, the latest last."""
        # One that is still going is not on offer again yet, and would else come back at once.
        known = {offer.batch_id for offer in offers} | self._held.runs.keys()
        self._gave_way_at = {
            batch_id: at for batch_id, at in self._gave_way_at.items() if batch_id in known
        }
        return sorted(offers, key=lambda offer: self._gave_way_at.get(offer.batch_id, -math.inf))

    def _make_room(self, offers: Sequence[Offer], now: float) -> None:
        """Every slot is taken: give one up where it idles, or where another batch has none.

        One at a time: the next is chosen when this one has gone, or takes long to.
        """
        shards = [shard for run in self._held.runs.values() for shard in run.shards.values()]
        if any(shard.is_leaving(now) for shard in shards):
            return
        running = [shard for shard in shards if shard.state is State.RUNNING]
        victim = self._idle_shard(running, now)
        if victim is None and any(self._is_left_out(offer, now) for offer in offers):
            victim = self._longest_turn(running, now)
        if victim is not None:
            self._give_way(victim, now)

    def _give_way(self, victim: OpenShard, now: float) -> None:
        # What flies may land: cut and sent again in its next turn, and cut again, a line that takes
        # longer than a turn would never get its result.
        victim.state = State.RETURNING
        victim.gone_by = now + self._settings.ends.drain_seconds
        batch_id = victim.claim.unit.batch_id
        self._gave_way_at[batch_id] = now
        self._held.runs[batch_id].changed.set()

    def _is_left_out(self, offer: Offer, now: float) -> bool:
        return offer.batch_id not in self._held.runs and self._missing(offer, now) > 0

    def _idle_shard(self, running: Sequence[OpenShard], now: float) -> OpenShard | None:
        for shard in running:
            if shard.endpoint is not None and shard.endpoint.is_paused(now) and shard.is_settled:
                return shard
        return None

    def _longest_turn(self, running: Sequence[OpenShard], now: float) -> OpenShard | None:
        """Return a shard of a batch that holds several, or the one whose turn is over.

        Attempts are counted here alone: a shard whose lines have used some up stays longer, so
        that these lines come to their end.
        """
        turn_seconds = self._settings.valves.turn_seconds
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
                len(shard.flights),
                shard.opened_at,
            ),
        )


def reject_all(run: Run, shard: OpenShard) -> None:
    """Give every open line of a shard the error that no upstream serves its model."""
    for index in sorted(shard.undecided):
        run.add_error(
            shard,
            index,
            code="model_not_found",
            message=f"The model '{shard.model}' is not served by any configured upstream.",
        )
    shard.forget_waiting()
