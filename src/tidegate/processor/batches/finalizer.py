"""The end of a batch: its final status, its files, and the room of its plan (PROTOCOL 15)."""

from contextlib import suppress

from tidegate.domain.errors import ClaimLost, StorageFull
from tidegate.domain.ledger.values import ClaimedBatch
from tidegate.processor.context import ProcessorContext
from tidegate.processor.retrying import retry_until_answered
from tidegate.processor.write_gate import WriteGate
from tidegate.pubsub.base import batch_topic


class Finalizer:
    """Finalizes one claimed batch at a time."""

    def __init__(self, context: ProcessorContext, gate: WriteGate) -> None:
        self._context = context
        self._gate = gate

    async def finish(self, claimed: ClaimedBatch) -> None:
        """Give a batch its terminal status and delete its plan, unless the claim was lost."""
        context = self._context
        at = context.clock.now()
        try:
            batch = await retry_until_answered(
                lambda: context.store.finish_batch(claimed.claim, at=at), context.rng, self._gate
            )
        except ClaimLost:
            context.observer.on_claim_lost("finalizing")
            return
        context.observer.on_batch_ended(batch)
        context.pubsub.publish(batch_topic(batch.id))
        if batch.plan_blob is not None:
            # Some file systems need room to remove a file. What stays is the collector's.
            with suppress(StorageFull):
                await context.blobs.delete(batch.plan_blob)
