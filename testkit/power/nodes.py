"""What lies on a disk: what is flushed of it, and what was changed since."""

import random
from dataclasses import dataclass, field

SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at an offset, that may survive sector by sector."""

    offset: int
    data: bytes

    def settle(self, content: bytearray, chance: random.Random, luck: float) -> None:
        """Let some sectors reach the disk, and perhaps the new length without the bytes."""
        start, end = self.offset, self.offset + len(self.data)
        while start < end:
            stop = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
            if chance.random() < luck:
                lengthen(content, start, chance)
                content[start:stop] = self.data[start - self.offset : stop - self.offset]
            start = stop
        if chance.random() < luck:
            lengthen(content, end, chance)


@dataclass(frozen=True, slots=True)
class Cut:
    """A new length."""

    length: int

    def settle(self, content: bytearray, chance: random.Random, luck: float) -> None:
        """Reach the disk, or not."""
        if chance.random() < luck:
            del content[self.length :]
            lengthen(content, self.length, None)


@dataclass(slots=True)
class File:
    """Bytes: those that are flushed, those that programs see, and how these came about."""

    flushed: bytes = b""
    cached: bytearray = field(default_factory=bytearray)
    changes: list[Write | Cut] = field(default_factory=list)

    def change(self, change: Write | Cut) -> None:
        """Let programs see a change."""
        if isinstance(change, Write):
            lengthen(self.cached, change.offset, None)
            self.cached[change.offset : change.offset + len(change.data)] = change.data
        else:
            del self.cached[change.length :]
            lengthen(self.cached, change.length, None)
        self.changes.append(change)

    def flush(self) -> None:
        """Make what programs see survive."""
        self.flushed = bytes(self.cached)
        self.changes.clear()

    def survivor(self, chance: random.Random, luck: float) -> "File":
        """Return what is left of it without power."""
        content = bytearray(self.flushed)
        for change in self.changes:
            change.settle(content, chance, luck)
        return File(flushed=bytes(content), cached=content)


@dataclass(slots=True)
class Directory:
    """Names, each with the number of its node; in a change None stands for a name that goes."""

    flushed: dict[str, int] = field(default_factory=dict)
    cached: dict[str, int] = field(default_factory=dict)
    changes: list[dict[str, int | None]] = field(default_factory=list)

    def change(self, change: dict[str, int | None]) -> None:
        """Let programs see a change."""
        self.cached = _changed(self.cached, change)
        self.changes.append(change)

    def flush(self) -> None:
        """Make what programs see survive."""
        self.flushed = dict(self.cached)
        self.changes.clear()

    def surviving_names(self, chance: random.Random, luck: float) -> dict[str, int]:
        """Return the names that are left without power; each change survives whole or not."""
        names = self.flushed
        for change in self.changes:
            if chance.random() < luck:
                names = _changed(names, change)
        return names


def _changed(names: dict[str, int], change: dict[str, int | None]) -> dict[str, int]:
    result: dict[str, int | None] = {**names, **change}
    return {name: number for name, number in result.items() if number is not None}


def lengthen(content: bytearray, length: int, chance: random.Random | None) -> None:
    """Fill up to a length: with zeros, or with what happened to lie on the disk."""
    gap = length - len(content)
    if gap > 0:
        is_clean = chance is None or chance.random() < 0.5  # noqa: PLR2004 - a coin
        content += bytes(gap) if is_clean or chance is None else chance.randbytes(gap)
