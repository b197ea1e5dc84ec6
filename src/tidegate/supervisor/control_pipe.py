"""How a parent controls its child process: through the pipe on the child's standard input.

It is a pipe and no signal for two reasons. The child ends when its parent dies for any reason; and
if a service manager sends one signal to parent and child at the same time, the child does not count
it as two requests.
"""

import asyncio
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from tidegate.domain.errors import SettingsInvalid
from tidegate.runtime.services import ShutdownRequest

STOP_REQUEST = b"\n"
FIRST_LINE_BYTES_MAX = 2**22
_READ_BYTES = 4_096


def read_first_line(descriptor: int) -> str:
    """Return the first line that the parent sends, without its end; called before anything else.

    Raises:
        SettingsInvalid: there is no pipe, or no whole line of at most `FIRST_LINE_BYTES_MAX` in it.
    """
    mode = os.fstat(descriptor).st_mode
    # Some event loops create a socket instead of a pipe; both are read in the same way.
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        raise SettingsInvalid(
            "--supervised is how `tidegate serve` starts its processors, by a pipe on standard "
            "input; leave it out."
        )
    line = bytearray()
    while len(line) <= FIRST_LINE_BYTES_MAX:
        # One byte at a time: the bytes after the line are stop requests, which are read later.
        piece = os.read(descriptor, 1)
        if not piece:
            break
        if piece == b"\n":
            return line.decode(errors="replace")
        line += piece
    raise SettingsInvalid("No settings came on standard input: the process that sends them ended.")


@contextmanager
def listen_to_parent(shutdown: ShutdownRequest, descriptor: int) -> Iterator[None]:
    """Obey the parent while the block runs: its first request stops, its second one aborts.

    The end of the pipe stops too, because without its parent no process would end this one.
    Requests of the parent and signals are counted separately: one of each does not abort.
    """
    loop = asyncio.get_running_loop()
    received = 0

    def on_readable() -> None:
        nonlocal received
        try:
            data = os.read(descriptor, _READ_BYTES)
        except ConnectionResetError:
            data = b""  # The parent died with unread bytes at its end.
        received += data.count(STOP_REQUEST)
        if not data:
            loop.remove_reader(descriptor)
        shutdown.requested.set()
        if received > 1:
            shutdown.forced.set()

    loop.add_reader(descriptor, on_readable)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
