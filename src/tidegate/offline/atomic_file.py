"""Files of the user that are replaced as a whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tidegate.domain.errors import StorageFull

PART_SUFFIX = ".tidegate-part"


@contextmanager
def replace_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path`, durably, when the block ends well.

    Until then it is beside it as `NAME.tidegate-part`; after an error it is removed. One process
    at a time may do so for one path.

    Raises:
        StorageFull: it can't be written; the message says why.
    """
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        flush_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise StorageFull(
            f"{path} can't be written ({error.strerror or error}): fix that, and run the same "
            "command again."
        ) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def flush_directory(folder: Path) -> None:
    """Make the names in a directory survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
