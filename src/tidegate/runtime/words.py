"""How a process speaks to the one that started it: lines on its standard output, about its state.

The other way round goes `tidegate.runtime.orders`. What can't be written now, because the parent
stands still, is said again later: a child never waits for being heard.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec

SAY_SECONDS = 0.5
REASON_CHARACTERS_MAX = 500
# Below what a pipe takes in one piece, so that no line is ever torn.
LINE_BYTES_MAX = 4_096


class Words(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a child says of itself: why it finds no room to write, or None where it does."""

    storage: str | None = None


def words_of(line: bytes) -> Words | None:
    """Return what a line says; None for one that is not made of such words."""
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(line, type=Words)
    return None


class Lines:
    """Cuts what a child writes into lines. One beyond `LINE_BYTES_MAX` is left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_too_long = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that end in this piece, without their ends."""
        *ended, rest = (self._rest + data).split(b"\n")
        for line in ended:
            if not self._is_too_long and len(line) <= LINE_BYTES_MAX:
                yield line
            self._is_too_long = False
        self._is_too_long = self._is_too_long or len(rest) > LINE_BYTES_MAX
        self._rest = b"" if self._is_too_long else rest


class Speaker:
    """A service that tells the parent, through a descriptor, whenever the storage fills or empties.

    It looks every `SAY_SECONDS`, from `begin` on, so that the ready line comes first. A parent that
    is gone, or that reads nothing, is no error. Without a descriptor there is no parent.
    """

    def __init__(self, storage_reason: Callable[[], str | None], descriptor: int | None) -> None:
        self._storage_reason = storage_reason
        self._descriptor = descriptor
        self._is_begun = False
        self._end = asyncio.Event()
        self._said: str | None = None

    async def run(self) -> None:
        """Speak until stopped."""
        while not self._end.is_set():
            if self._is_begun and self._descriptor is not None:
                self._speak(self._descriptor)
            with suppress(TimeoutError):
                async with asyncio.timeout(SAY_SECONDS):
                    await self._end.wait()

    def begin(self) -> None:
        """Speak from now on."""
        self._is_begun = True

    def stop(self) -> None:
        """End."""
        self._end.set()

    def abort(self) -> None:
        """End."""
        self._end.set()

    def _speak(self, descriptor: int) -> None:
        reason = self._storage_reason()
        if reason is not None:
            reason = reason[:REASON_CHARACTERS_MAX]
        if reason != self._said and _written(
            descriptor, msgspec.json.encode(Words(reason)) + b"\n"
        ):
            self._said = reason


def _written(descriptor: int, line: bytes) -> bool:
    """Write a line if there is room for all of it now; say whether it was."""
    assert len(line) <= LINE_BYTES_MAX, len(line)
    was_blocking = os.get_blocking(descriptor)
    os.set_blocking(descriptor, False)
    try:
        return os.write(descriptor, line) == len(line)
    except OSError:  # A full pipe, or a parent that is gone.
        return False
    finally:
        os.set_blocking(descriptor, was_blocking)
