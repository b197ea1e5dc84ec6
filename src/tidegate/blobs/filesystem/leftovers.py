"""What writers that died left behind: drafts without a writer, and directories without a blob.

A draft's writer holds its lock, which ends with the writer's process and with nothing else: a
number of a process says little where containers share a disk, and age says nothing of a process
that was stopped for hours.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tidegate.blobs.filesystem.disk import MARK, Disk

_DRAFT = re.compile(rf".+{MARK}\d+-\d+")


def count_leftovers(disk: Disk) -> int:
    """Count the drafts whose writers are dead. Blocks."""
    return sum(_act_on(disk, path, remove=False) for path in _drafts(disk))


def remove_leftovers(disk: Disk) -> int:
    """Remove the drafts whose writers are dead, and empty directories; count the drafts. Blocks."""
    count = 0
    with disk.writing():
        for path in _drafts(disk):
            count += _act_on(disk, path, remove=True)
        for path in sorted(_directories(disk), reverse=True):
            disk.remove_if_empty(path)
    return count


def _drafts(disk: Disk) -> Iterator[Path]:
    for folder in (disk.root, *_directories(disk)):
        for entry in disk.entries(folder):
            # Another name with a `~` is not ours.
            if not entry.is_directory and _DRAFT.fullmatch(entry.name):
                yield folder / entry.name


def _directories(disk: Disk) -> list[Path]:
    found: list[Path] = []
    waiting = [disk.root]
    while waiting:
        folder = waiting.pop()
        inner = [folder / entry.name for entry in disk.entries(folder) if entry.is_directory]
        found += inner
        waiting += inner
    return found


def _act_on(disk: Disk, path: Path, *, remove: bool) -> bool:
    """Return whether the draft's writer is dead; if so, and `remove`, remove the draft.

    What can't be opened or removed now is not worth the disk's good name: it stays.
    """
    files = disk.files
    with suppress(OSError):
        descriptor = files.open_to_read(path)
        try:
            if not (files.lock(descriptor) and files.is_at(descriptor, path)):
                return False
            if remove:
                # With the lock in hand: a writer who has just made the file sees that it is gone.
                files.remove(path)
            return True
        finally:
            files.close(descriptor)
    return False
