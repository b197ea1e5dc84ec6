"""The machine's file system with faults on order, for tests of what stands on it."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from tidegate.blobs.filesystem.files import SystemFiles


class FaultyFiles(SystemFiles):
    """Real files that fail, stop short or wait on request, and keep a log of what was asked.

    Attributes:
        log: what was asked of blobs, and the flushes of directories, as "verb name", in order.
        open_descriptors: how many files and directories are open now.
        write_bytes_max: how many bytes one write takes at most; None for all of them.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.open_descriptors = 0
        self.write_bytes_max: int | None = None
        self._orders: dict[str, list[Callable[[], None]]] = {}
        self._names: dict[int, str] = {}
        self._directories: set[int] = set()
        self._guard = threading.Lock()

    def fail(self, verb: str, code: int, *, after: int = 0) -> None:
        """Let `verb` fail once with this error number, after `after` calls that succeed.

        Flushing a directory has a verb of its own, "sync_directory".
        """

        def fault() -> None:
            raise OSError(code, os.strerror(code))

        self._orders.setdefault(verb, []).extend([_succeed] * after + [fault])

    def meet(self, verb: str, action: Callable[[], object], *, times: int = 1) -> None:
        """Let the next calls of `verb` run `action` first, in their thread."""

        def before() -> None:
            action()

        self._orders.setdefault(verb, []).extend([before] * times)

    @override
    def make_directory(self, path: Path) -> bool:
        self._obey("make_directory", path.name)
        return super().make_directory(path)

    @override
    def create(self, path: Path) -> int:
        self._obey("create", path.name)
        return self._opened(super().create(path), path)

    @override
    def open_to_write(self, path: Path) -> int:
        self._obey("open_to_write", path.name)
        return self._opened(super().open_to_write(path), path)

    @override
    def open_to_read(self, path: Path) -> int:
        self._obey("open_to_read", path.name)
        return self._opened(super().open_to_read(path), path)

    @override
    def open_directory(self, path: Path) -> int:
        self._order("open_directory")()
        descriptor = self._opened(super().open_directory(path), path)
        self._directories.add(descriptor)
        return descriptor

    @override
    def lock(self, descriptor: int) -> bool:
        self._order("lock")()
        return super().lock(descriptor)

    @override
    def is_at(self, descriptor: int, path: Path) -> bool:
        self._order("is_at")()
        return super().is_at(descriptor, path)

    @override
    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        self._obey("write", self._names[descriptor])
        return super().write(descriptor, data[: self.write_bytes_max], offset)

    @override
    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        self._obey("read", self._names[descriptor])
        return super().read(descriptor, length, offset)

    @override
    def truncate(self, descriptor: int, length: int) -> None:
        self._obey("truncate", self._names[descriptor])
        super().truncate(descriptor, length)

    @override
    def sync(self, descriptor: int) -> None:
        verb = "sync_directory" if descriptor in self._directories else "sync"
        self._obey(verb, self._names[descriptor])
        super().sync(descriptor)

    @override
    def sync_data(self, descriptor: int) -> None:
        self._obey("sync_data", self._names[descriptor])
        super().sync_data(descriptor)

    @override
    def rename(self, source: Path, target: Path) -> None:
        self._obey("rename", target.name)
        super().rename(source, target)

    @override
    def remove(self, path: Path) -> None:
        self._obey("remove", path.name)
        super().remove(path)

    @override
    def remove_directory(self, path: Path) -> None:
        self._obey("remove_directory", path.name)
        super().remove_directory(path)

    @override
    def close(self, descriptor: int) -> None:
        with self._guard:
            self.open_descriptors -= 1
            del self._names[descriptor]
            self._directories.discard(descriptor)
        super().close(descriptor)

    def _opened(self, descriptor: int, path: Path) -> int:
        with self._guard:
            self.open_descriptors += 1
            self._names[descriptor] = path.name
        return descriptor

    def _obey(self, verb: str, name: str) -> None:
        with self._guard:
            self.log.append(f"{verb} {name.partition('~')[0]}")
        self._order(verb)()

    def _order(self, verb: str) -> Callable[[], None]:
        with self._guard:
            orders = self._orders.get(verb)
            return orders.pop(0) if orders else _succeed


def _succeed() -> None:
    return
