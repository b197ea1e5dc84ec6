"""A temporary file: bytes are appended, and read at any offset."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from typing import BinaryIO, Self

from tidegate.domain.errors import StorageFull

OpenSpillFile = Callable[[], BinaryIO]

# Freeing this many bytes takes the system about 2 ms.
FREED_AT_ONCE = 8 * 2**20


class SpillFile:
    """A file that `open_spill_file` opens when it is first used; closing it deletes it.

    Use it with `with`. `purpose` names the use of the file in errors.
    """

    def __init__(self, open_spill_file: OpenSpillFile, purpose: str) -> None:
        self._open_spill_file = open_spill_file
        self._purpose = purpose
        self._file: BinaryIO | None = None
        self._descriptor: int | None = None
        self.length = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        file, self._file = self._file, None
        # Closing may flush bytes for which there is no room; they are not needed any more.
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
        """Append bytes.

        Raises:
            StorageFull: the scratch directory has no room.
        """
        with self._room():
            file = self._opened()
            file.seek(self.length)
            written = file.write(data)
            while written < len(data):
                # An unbuffered file may write less than it is given.
                written += file.write(data[written:])
        self.length += len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at an offset, fewer only at the end of the file.

        Raises:
            StorageFull: there is no room for bytes still in memory.
        """
        return self.read_all([(offset, length)])[0]

    def read_all(self, ranges: Iterable[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of many ranges, each an offset and a length; raises like `read`."""
        with self._room():
            file = self._opened()
            if self._descriptor is not None:
                # Half the cost of a seek and a read, and thousands of small records are read.
                number = self._descriptor
                return [os.pread(number, length, offset) for offset, length in ranges]
            found: list[bytes] = []
            for offset, length in ranges:
                file.seek(offset)
                found.append(file.read(length))
            return found

    def shrink(self) -> bool:
        """Truncate the file by up to `FREED_AT_ONCE`; return False if nothing is left."""
        left = max(self.length - FREED_AT_ONCE, 0)
        # If truncating fails, closing the file frees the space.
        with suppress(OSError):
            if self._file is not None:
                self._file.truncate(left)
        self.length = left
        return left > 0

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = self._open_spill_file()
            # Only an unbuffered file can be read through its descriptor.
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
