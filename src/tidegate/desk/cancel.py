"""Stop a batch; what came back so far is kept."""

from tidegate.desk.desk import Desk
from tidegate.desk.refusals import could_be_id, echo
from tidegate.desk.shown import shown_batch
from tidegate.domain.batch import Batch
from tidegate.signals.base import WORK, batch_topic
from tidegate.stores.ledger import no_batch


async def cancel_batch(desk: Desk, tenant: str, batch_id: str) -> Batch:
    """Ask for the end of a batch. One that is cancelling or cancelled is returned as it is.

    Raises:
        NotFound: there is none of this tenant.
        Conflict: it is finalizing or has ended otherwise.
    """
    if not could_be_id(batch_id):
        raise no_batch(echo(batch_id))
    batch = await desk.store.cancel_batch(tenant, batch_id, at=desk.clock.now())
    # Who runs it must stop, and shards that nobody holds must be claimed to be ended.
    desk.signals.notify(batch_topic(batch_id))
    desk.signals.notify(WORK)
    return shown_batch(batch, desk.settings)
