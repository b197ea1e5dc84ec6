"""How a process hears from the one that started it: through the pipe on its standard input.

A pipe and not a signal, for two reasons: it ends by itself when the parent dies of whatever, and an
order can't be taken for a second signal where a service manager signals parent and child at once.
"""

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from tidegate.domain.errors import SettingsInvalid
from tidegate.runtime.services import Stops

ORDER = b"\n"
HANDED_BYTES_MAX = 2**22
_READ_BYTES = 4_096


def read_handed(descriptor: int) -> str:
    """Return the first line that the parent sends, without its end; called before anything else.

    Raises:
        SettingsInvalid: there is no pipe, or no whole line of at most `HANDED_BYTES_MAX` in it.
    """
    mode = os.fstat(descriptor).st_mode
    # Some event loops make a socket where others make a pipe; they read alike.
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        raise SettingsInvalid(
            "--supervised is how `tidegate serve` starts its processors, by a pipe on standard "
            "input; leave it out."
        )
    taken = bytearray()
    while len(taken) <= HANDED_BYTES_MAX:
        # Byte by byte where a line may end: what follows it are orders for later.
        piece = os.read(descriptor, 1)
        if not piece:
            break
        if piece == b"\n":
            return taken.decode(errors="replace")
        taken += piece
    raise SettingsInvalid("No settings came on standard input: the process that sends them ended.")


@contextmanager
def heard_from_parent(stops: Stops, descriptor: int) -> Iterator[None]:
    """Obey the parent while the block runs: its first order stops, its second one forces.

    The end of the pipe stops too: without its parent nobody would ever end this process. Orders
    and signals are counted apart, so that one of each is not taken for two.
    """
    loop = asyncio.get_running_loop()
    heard = 0

    def hear() -> None:
        nonlocal heard
        try:
            data = os.read(descriptor, _READ_BYTES)
        except ConnectionResetError:
            data = b""  # The parent died with something unread in its end.
        heard += data.count(ORDER)
        if not data:
            loop.remove_reader(descriptor)
        stops.asked.set()
        if heard > 1:
            stops.forced.set()

    loop.add_reader(descriptor, hear)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
