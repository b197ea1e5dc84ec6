"""The contract of every blob store whose reading can fail. See `blobs` for use."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

from collections.abc import Awaitable, Callable

from tidegate.blobs.base import BlobStore
from tidegate.domain.errors import BlobMissing, BlobUnreadable


class UnreadableContract:
    """What a store says whose reading can fail though the blob is there.

    Asks for a fixture `fail_reads`: called, it lets the next look at any blob fail, once.
    """

    async def test_a_failed_read_is_no_missing_blob(
        self, blobs: BlobStore, fail_reads: Callable[[], None]
    ) -> None:
        await blobs.put("there", b"0123")
        fail_reads()
        await _expect_unreadable(blobs.read("there", 0, 4))
        assert await blobs.read("there", 0, 4) == b"0123"

    async def test_a_failed_look_at_its_length_is_no_missing_blob(
        self, blobs: BlobStore, fail_reads: Callable[[], None]
    ) -> None:
        await blobs.put("there", b"0123")
        fail_reads()
        await _expect_unreadable(blobs.length("there"))
        assert await blobs.length("there") == 4

    async def test_what_is_missing_is_never_said_to_be_there(self, blobs: BlobStore) -> None:
        await blobs.put("there", b"0123")
        for look in (
            blobs.read("nothing", 0, 1),
            blobs.read("there", 3, 2),
            blobs.length("nothing"),
        ):
            try:
                await look
            except BlobUnreadable as error:
                raise AssertionError("it is not there at all") from error
            except BlobMissing:
                continue
            raise AssertionError("it could be read")


async def _expect_unreadable(look: Awaitable[object]) -> None:
    try:
        await look
    except BlobUnreadable as error:
        if "there" in str(error):
            return
        raise
    raise AssertionError("it could be read")
