"""A disk that forgets what was not flushed when its power goes, as real ones may.

It lies wholly in memory. Every file has bytes that are flushed and changes that are not, every
directory flushed names and changes of names. A write or a flush spends an operation; the
power can be cut at any of them, or a tape of all of them be played again up to any.
"""

import errno
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

from testkit.power.nodes import Cut, Directory, File, Write

# How likely it is that a change which was not flushed reached the disk anyway, by the cut.
_LUCK = (0.1, 0.5, 0.9, 1.0)


class PowerLost(BaseException):
    """The power is gone, and with it everything that was not flushed.

    No `Exception`: a program that lost its power handles nothing any more.
    """


Step = Callable[["PowerLossDisk"], object]


class PowerLossDisk:
    """Files and directories below `root`, which is there and flushed from the start.

    Nodes have numbers, so that a file can be used when its name is gone. Any thread may call.

    Attributes:
        operations: how many operations were spent since the power came on.
        flushes: how many of them flushed something.
        tape: every operation so far; played on a disk that begins as this one did they give this
            one again.
    """

    def __init__(self, root: Path, nodes: dict[int, File | Directory] | None = None) -> None:
        self.root = root.absolute()
        self.operations = 0
        self.flushes = 0
        self.tape: list[Step] = []
        self._cut_at: int | None = None
        self._is_on = True
        self._nodes: dict[int, File | Directory] = nodes or {0: Directory()}
        self._guard = threading.RLock()

    # Power

    def cut_power_at(self, operation: int) -> None:
        """Lose power at this operation, counted from 1: it and every later call raises."""
        assert operation > self.operations, (operation, self.operations)
        self._cut_at = operation

    def restarted(self, chance: random.Random | None) -> "PowerLossDisk":
        """Return what is left after the power was cut now.

        Without `chance` nothing that was not flushed is left. With it any of these changes may
        have reached the disk: sectors of a write one by one, names one by one.
        """
        luck = 0.0 if chance is None else chance.choice(_LUCK)
        left: dict[int, File | Directory] = {}
        with self._guard:
            self._leave(0, left, chance or random.Random(0), luck)
        return PowerLossDisk(self.root, left)

    def hear(self) -> None:
        """Do nothing, with power.

        Raises:
            PowerLost: it is gone.
        """
        if not self._is_on:
            raise PowerLost

    # Looking

    def find(self, path: Path) -> int:
        """Return the number of the node at a path.

        Raises:
            FileNotFoundError: there is none.
            NotADirectoryError: the path leads through a file.
        """
        self.hear()
        with self._guard:
            number = 0
            for name in path.relative_to(self.root).parts:
                found = self._directory(number, path).cached.get(name)
                if found is None:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
                number = found
            return number

    def exists(self, path: Path) -> bool:
        """Return whether there is a file or directory."""
        try:
            self.find(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_directory(self, number: int) -> bool:
        """Return whether a node is a directory."""
        return isinstance(self._nodes[number], Directory)

    def names(self, path: Path) -> dict[str, int]:
        """Return the names in a directory, each with the number of its node."""
        return dict(self._directory(self.find(path), path).cached)

    def read(self, number: int, length: int, offset: int) -> bytes:
        """Return at most `length` bytes of a file."""
        self.hear()
        with self._guard, memoryview(self._file(number).cached) as content:
            return bytes(content[offset : offset + length])

    def size(self, number: int) -> int:
        """Return the length of a file in bytes."""
        self.hear()
        return len(self._file(number).cached)

    # Changing: each call spends an operation

    def make(self, path: Path, *, directory: bool = False) -> int:
        """Make an empty file or directory; return its number.

        Raises:
            FileExistsError: the name is taken.
        """
        with self._guard:
            parent = self._directory(self.find(path.parent), path)
            if path.name in parent.cached:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            self._spend(lambda disk: disk.make(path, directory=directory))
            number = len(self._nodes)
            self._nodes[number] = Directory() if directory else File()
            parent.change({path.name: number})
            return number

    def write(self, number: int, data: bytes, offset: int) -> None:
        """Write bytes at an offset; a gap before it is filled with zeros."""
        with self._guard:
            self._spend(lambda disk: disk.write(number, data, offset))
            self._file(number).change(Write(offset, data))

    def truncate(self, number: int, length: int) -> None:
        """Give a file a length in bytes."""
        with self._guard:
            self._spend(lambda disk: disk.truncate(number, length))
            self._file(number).change(Cut(length))

    def sync(self, number: int) -> None:
        """Flush the bytes of a file, or the names in a directory."""
        with self._guard:
            self._spend(lambda disk: disk.sync(number))
            self._nodes[number].flush()
            self.flushes += 1

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name in its directory, in one step."""
        assert source.parent == target.parent, (source, target)
        with self._guard:
            number = self.find(source)
            self._spend(lambda disk: disk.rename(source, target))
            parent = self._directory(self.find(source.parent), source)
            parent.change({source.name: None, target.name: number})

    def remove(self, path: Path) -> None:
        """Remove the name of a file, or of an empty directory.

        Raises:
            OSError: the directory is not empty.
        """
        with self._guard:
            node = self._nodes[self.find(path)]
            if isinstance(node, Directory) and node.cached:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
            self._spend(lambda disk: disk.remove(path))
            self._directory(self.find(path.parent), path).change({path.name: None})

    def _spend(self, step: Step) -> None:
        self.hear()
        if self.operations + 1 == self._cut_at:
            self._is_on = False
            raise PowerLost
        self.operations += 1
        self.tape.append(step)

    def _file(self, number: int) -> File:
        node = self._nodes[number]
        if isinstance(node, Directory):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return node

    def _directory(self, number: int, path: Path) -> Directory:
        node = self._nodes[number]
        if isinstance(node, File):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        return node

    def _leave(
        self, number: int, left: dict[int, File | Directory], chance: random.Random, luck: float
    ) -> int:
        """Add what survives of a node, and of all below it, to `left`; return its number there."""
        place = len(left)
        node = self._nodes[number]
        if isinstance(node, File):
            left[place] = node.survivor(chance, luck)
            return place
        left[place] = directory = Directory()
        for name, child in node.surviving_names(chance, luck).items():
            directory.cached[name] = self._leave(child, left, chance, luck)
        directory.flush()
        return place
