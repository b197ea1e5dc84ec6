"""One temporary file: bytes are added at its end and read back from any place."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from types import TracebackType
from typing import BinaryIO, Self

from tidegate.domain.errors import StorageFull

OpenSpillFile = Callable[[], BinaryIO]

# To give back so much takes the system a millisecond or two.
FREED_AT_ONCE = 8 * 2**20


class SpillFile:
    """A file that `make_scratch` opens with the first bytes, and that vanishes when it is closed.

    Use it with `with`. `purpose` says in errors what found no room.
    """

    def __init__(self, make_scratch: OpenSpillFile, purpose: str) -> None:
        self._make_scratch = make_scratch
        self._purpose = purpose
        self._file: BinaryIO | None = None
        self._descriptor: int | None = None
        self.length = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        file, self._file = self._file, None
        # What is thrown away may find no room for what it still meant to write.
        with suppress(OSError):
            if file is not None:
                file.close()

    def open(self) -> None:
        """Open the file now.

        Raises:
            StorageFull: there is no room for it.
        """
        with self._room():
            self._opened()

    def append(self, data: bytes) -> None:
        """Add bytes at the end.

        Raises:
            StorageFull: the scratch directory has no room.
        """
        with self._room():
            file = self._opened()
            file.seek(self.length)
            written = file.write(data)
            while written < len(data):
                # A file without a buffer may take less at a time.
                written += file.write(data[written:])
        self.length += len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Return so many bytes from a place, fewer only where they end.

        Raises:
            StorageFull: what was added last, still in memory, found no room.
        """
        return self.read_all([(offset, length)])[0]

    def read_all(self, ranges: Iterable[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of many places, each an offset and a length; raises as `read` does."""
        with self._room():
            file = self._opened()
            if self._descriptor is not None:
                # Half the cost of a seek and a read; small records are read by the thousand.
                number = self._descriptor
                return [os.pread(number, length, offset) for offset, length in ranges]
            found: list[bytes] = []
            for offset, length in ranges:
                file.seek(offset)
                found.append(file.read(length))
            return found

    def shrink(self) -> bool:
        """Give back some of the space, of what was added last; return False once none is left."""
        left = max(self.length - FREED_AT_ONCE, 0)
        # What can't be given back now goes with the file.
        with suppress(OSError):
            if self._file is not None:
                self._file.truncate(left)
        self.length = left
        return left > 0

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = self._make_scratch()
            # A file with a buffer of its own may hold back what was written.
            self._descriptor = self._file.fileno() if isinstance(self._file, FileIO) else None
        return self._file

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageFull(
                f"No room for {self._purpose} in the scratch directory: {error}."
            ) from error
