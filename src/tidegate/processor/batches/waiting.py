"""The reasons why batches wait, as users see them."""

from collections.abc import Sequence

from tidegate.domain.share import Offer
from tidegate.processor.context import ProcessorContext
from tidegate.processor.dispatch.open_batch import OpenBatch, OpenBatches

REASON_CHARACTERS_MAX = 500
NOTES_AT_ONCE = 20
NOTED_MAX = 10_000


class WaitingReasons:
    """Records in the ledger why a batch waits, each time the reason changes."""

    def __init__(self, context: ProcessorContext, open_batches: OpenBatches) -> None:
        self._context = context
        self._open_batches = open_batches
        self._noted: dict[str, str] = {}

    async def note_open(self) -> None:
        """Record why the open batches wait."""
        for open_batch in list(self._open_batches.by_id.values()):
            reason = _reason(open_batch)
            if open_batch.shards and reason != open_batch.noted_reason:
                await self._context.store.note_waiting(open_batch.id, reason)
                open_batch.noted_reason = reason

    async def note_offered(self, offers: Sequence[Offer], now: float) -> None:
        """Record why offered batches without an open shard here wait for a paused endpoint.

        Records at most `NOTES_AT_ONCE` of them on each call, because each is a write.
        """
        by_id = self._open_batches.by_id
        reasons = {
            offer.batch_id: f"{endpoint.name}: {endpoint.reason}"
            for offer in offers
            if offer.batch_id not in by_id
            and (endpoint := self._context.routes.find(offer.model)) is not None
            and endpoint.was_paused_lately(now)
        }
        # A batch that is not on offer now may have been handed back with a pause, or run elsewhere:
        # the next processor that opens it corrects the reason.
        over = {offer.batch_id for offer in offers} & (self._noted.keys() - reasons.keys())
        over -= by_id.keys()
        changed: list[tuple[str, str | None]] = [(batch_id, None) for batch_id in sorted(over)]
        changed += [item for item in reasons.items() if self._noted.get(item[0]) != item[1]]
        for batch_id, reason in changed[:NOTES_AT_ONCE]:
            await self._context.store.note_waiting(batch_id, reason)
            if reason is None:
                del self._noted[batch_id]
            elif len(self._noted) < NOTED_MAX:
                self._noted[batch_id] = reason


def _reason(open_batch: OpenBatch) -> str | None:
    found = {
        f"{shard.endpoint.name}: {shard.endpoint.reason}"
        for shard in open_batch.shards.values()
        if shard.endpoint is not None and shard.endpoint.reason
    }
    return "; ".join(sorted(found))[:REASON_CHARACTERS_MAX] or None
