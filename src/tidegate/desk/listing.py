"""Walk the files and batches of a tenant, page by page."""

from tidegate.desk.desk import Desk
from tidegate.desk.refusals import check_range, could_be_id, echo
from tidegate.desk.shown import is_shown, shown_batch
from tidegate.domain.batch import Batch
from tidegate.domain.file import File, Purpose
from tidegate.stores.base import Page
from tidegate.stores.ledger import no_batch, no_file

FILES_MAX = 10_000
BATCHES_MAX = 100
BATCHES_DEFAULT = 20


async def list_files(
    desk: Desk,
    tenant: str,
    *,
    after: str | None = None,
    limit: int | None = None,
    ascending: bool = False,
    purpose: Purpose | None = None,
) -> Page[File]:
    """Return the files after `after`, newest first unless `ascending`.

    Raises:
        Refused: the limit is not between 1 and `FILES_MAX`.
        NotFound: `after` names no file of this tenant.
    """
    size = FILES_MAX if limit is None else limit
    check_range("limit", size, low=1, high=FILES_MAX)
    if after is not None and not could_be_id(after):
        raise no_file(echo(after), param="after")
    found: list[File] = []
    more = True
    while more and len(found) < size:
        page = await desk.store.list_files(
            tenant, after=after, limit=size - len(found), ascending=ascending, purpose=purpose
        )
        found += [file for file in page.items if is_shown(file, desk.settings)]
        more = page.has_more
        after = page.items[-1].id if page.items else after
    return Page(items=tuple(found), has_more=more)


async def list_batches(
    desk: Desk, tenant: str, *, after: str | None = None, limit: int | None = None
) -> Page[Batch]:
    """Return the batches after `after` as users see them, newest first.

    Raises:
        Refused: the limit is not between 1 and `BATCHES_MAX`.
        NotFound: `after` names no batch of this tenant.
    """
    size = BATCHES_DEFAULT if limit is None else limit
    check_range("limit", size, low=1, high=BATCHES_MAX)
    if after is not None and not could_be_id(after):
        raise no_batch(echo(after), param="after")
    page = await desk.store.list_batches(tenant, after=after, limit=size)
    items = tuple(shown_batch(batch, desk.settings) for batch in page.items)
    return Page(items=items, has_more=page.has_more)
