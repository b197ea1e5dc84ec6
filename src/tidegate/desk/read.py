"""Look at one file, its content, or one batch."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from tidegate.blobs.base import BlobStore
from tidegate.desk.desk import Desk
from tidegate.desk.downloads import Downloads
from tidegate.desk.refusals import could_be_id, echo
from tidegate.desk.shown import is_shown, shown_batch
from tidegate.domain.batch import Batch
from tidegate.domain.file import File, Part, Walk
from tidegate.stores.ledger import no_batch, no_file

CHUNK_PARTS_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The bytes of a file as they were at one instant, however much it grows after."""

    file: File
    parts: tuple[Part, ...]
    blobs: BlobStore
    downloads: Downloads = field(default_factory=Downloads)

    async def read(self, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """Yield these bytes in pieces, each as large as memory permits.

        Raises:
            BlobMissing: bytes that the ledger knows are gone.
        """
        assert 0 <= start <= start + length <= self.file.bytes, (start, length, self.file.bytes)
        walk = Walk(self.parts, start, length)
        with self.downloads.one():
            while parts := walk.take(self.downloads.chunk_bytes, CHUNK_PARTS_MAX):
                yield await self.blobs.read_parts(parts)


async def read_file(desk: Desk, tenant: str, file_id: str) -> File:
    """Return a file.

    Raises:
        NotFound: there is none that this tenant may see.
    """
    if not could_be_id(file_id):
        raise no_file(echo(file_id))
    file = await desk.store.get_file(tenant, file_id)
    if not is_shown(file, desk.settings):
        raise no_file(file_id)
    return file


async def open_content(desk: Desk, tenant: str, file_id: str) -> Content:
    """Return the content of a file, ready to be read.

    Raises:
        NotFound: there is none that this tenant may see.
    """
    if not could_be_id(file_id):
        raise no_file(echo(file_id))
    file, parts = await desk.store.get_parts(tenant, file_id)
    if not is_shown(file, desk.settings):
        raise no_file(file_id)
    assert file.bytes == sum(part.length for part in parts), file
    return Content(file=file, parts=parts, blobs=desk.blobs, downloads=desk.downloads)


async def read_batch(desk: Desk, tenant: str, batch_id: str) -> Batch:
    """Return a batch as users see it.

    Raises:
        NotFound: there is none of this tenant.
    """
    if not could_be_id(batch_id):
        raise no_batch(echo(batch_id))
    return shown_batch(await desk.store.get_batch(tenant, batch_id), desk.settings)
