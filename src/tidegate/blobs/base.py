"""The contract of every blob store.

A blob is written once under a fresh name, or grows by `append`; it is never changed. What a
writing method acknowledged survives power loss if the back-end is `durable`. Names are paths of
`[A-Za-z0-9._-]` segments joined by `/`; no segment is `.` or `..`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tidegate.domain.file import Part

_NAME = re.compile(r"(?!\.{1,2}(/|$))[A-Za-z0-9._-]+(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)*")
NAME_CHARACTERS_MAX = 200
NAMES_MAX = 10_000  # of one page


def is_name(name: str) -> bool:
    """Return whether a name is well-formed, so that a blob may have it."""
    return len(name) <= NAME_CHARACTERS_MAX and _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return a well-formed blob name unchanged; anything else is a bug in Tidegate."""
    assert is_name(name), name
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobHealth:
    """The state of a blob store; `place` is its location, for people.

    `free_bytes` is how many more bytes it takes; None if that is unknown.
    """

    place: str
    durable: bool
    free_bytes: int | None


class BlobWriter(ABC):
    """A writer of one new blob. Leaving `async with` without `finish` drops them."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Add bytes. Cheap for small pieces: the back-end buffers them.

        Raises:
            StorageFull: no room is left. The blob can only be dropped.
        """

    @abstractmethod
    async def finish(self) -> int:
        """Make the blob durable and visible; return its length in bytes.

        Raises:
            StorageFull: no room is left.
            StorageBroken: the flush failed.
        """

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Begin."""

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop what was not finished."""


class BlobStore(ABC):
    """A store of named byte sequences."""

    @property
    @abstractmethod
    def durable(self) -> bool:
        """Return whether what was acknowledged survives the end of the process and power loss."""

    @property
    @abstractmethod
    def appends(self) -> bool:
        """Return whether `append` works here; if not, every commit is a blob of its own."""

    @abstractmethod
    def writer(self, name: str) -> BlobWriter:
        """Return a writer for a new blob. An unfinished blob of that name is replaced."""

    @abstractmethod
    async def put(self, name: str, data: bytes) -> None:
        """Write a whole small blob durably. The same name and bytes again are harmless.

        Raises:
            StorageFull: no room is left; nothing of the blob is visible.
            StorageBroken: the flush failed.
        """

    @abstractmethod
    async def append(self, name: str, data: bytes, *, after: int) -> int:
        """Add bytes at the end of a blob durably; return their offset, which is at least `after`.

        `after` is the end of the bytes that earlier calls acknowledged, 0 before the first one:
        only then is the blob made. One process appends to one name, one call at a time for each
        name. After a failure the bytes of the failed call are never part of a later offset's slice.

        Raises:
            BlobMissing: the blob vanished or lost acknowledged bytes. Nothing was written.
            StorageFull: no room is left.
            StorageBroken: the flush failed.
        """

    @abstractmethod
    async def read(self, name: str, offset: int, length: int) -> bytes:
        """Return exactly these bytes.

        Raises:
            BlobMissing: there is no such blob, or it is shorter.
            BlobUnreadable: it may be there, but reading it failed; a later call may succeed.
            StorageFull: there are too many open files, or too little memory, to read it now.
        """

    async def read_parts(self, parts: Sequence[Part]) -> bytes:
        """Return the bytes of these slices one after the other, as `read` would of each.

        Raises:
            BlobMissing: bytes of one of them can't be read.
            StorageFull: there are too many open files, or too little memory, to read them now.
        """
        pieces = [await self.read(part.blob, part.offset, part.length) for part in parts]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of many places of one blob, each an offset and a length above zero.

        Raises: as `read` does of the first that can't be read.
        """
        return [await self.read(name, offset, length) for offset, length in ranges]

    @abstractmethod
    async def delete(self, name: str) -> None:
        """Remove a blob and free its space. One that is not there is no error."""

    @abstractmethod
    async def list_names(
        self, prefix: str, *, after: str = "", limit: int = NAMES_MAX
    ) -> list[str]:
        """Return names of finished blobs that begin with `prefix` and sort behind `after`.

        These are the first `limit` ones, sorted; fewer only if there are no others.
        """

    async def name_pages(self, prefix: str) -> AsyncIterator[list[str]]:
        """Yield all names of finished blobs that begin with `prefix`, sorted, page by page.

        Names that are added or removed meanwhile may be included or not.
        """
        after = ""
        while page := await self.list_names(prefix, after=after):
            yield page
            if len(page) < NAMES_MAX:
                return
            after = page[-1]

    @abstractmethod
    async def length(self, name: str) -> int:
        """Return how many bytes a blob has.

        Raises:
            BlobMissing: there is no such blob.
            BlobUnreadable: it may be there, but its length can't be read now.
            StorageFull: there are too many open files, or too little memory.
        """

    @abstractmethod
    async def count_leftovers(self) -> int:
        """Count the unfinished blobs of dead writers that `remove_leftovers` would remove."""

    @abstractmethod
    async def remove_leftovers(self) -> int:
        """Remove the unfinished blobs of dead writers; return how many there were.

        Blobs that a live process, this one or another, is still writing stay. Those that can't be
        removed now are left for the next call.
        """

    @abstractmethod
    async def check(self) -> None:
        """Prove that a blob can be written and read back.

        Raises:
            StorageFull: no room is left.
            StorageBroken: it does not work.
        """

    @abstractmethod
    async def health(self) -> BlobHealth:
        """Return the state of the store. Nothing is written.

        Raises:
            StorageBroken: its state can't be read.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Release files and threads. Closing twice is harmless."""
