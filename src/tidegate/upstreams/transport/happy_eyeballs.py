"""Connect to the address of a host that answers first (RFC 8305, "happy eyeballs").

It is implemented here because uvloop does not have it.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from tidegate.upstreams.transport.dns import Address, AddressCache

# How long to wait for one address before the next is tried as well; the RFC's value.
ATTEMPT_DELAY_SECONDS = 0.25
# Concurrent attempts; when one of them fails, the next begins.
ATTEMPTS_AT_ONCE_MAX = 6


async def dial(addresses: AddressCache) -> socket.socket:
    """Return a socket that is connected to one of the addresses.

    Cancelling it leaves no socket behind.

    Raises:
        OSError: the host has no address, or none of them can be reached.
        UnicodeError: the name of the host is invalid.
    """
    places = await addresses.take()
    try:
        if len(places) == 1:
            return await _connected(places[0])
        return await _Race(places, addresses.deprioritize).run()
    except OSError:
        addresses.invalidate()
        raise


async def _connected(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # Event loops set this only for sockets that they create.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await _connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(sock: socket.socket, address: Address) -> None:
    """Connect a socket.

    The loop's own method is not used: one of the loops resolves each address again in a thread,
    which is most of the cost of a connection.
    """
    code = sock.connect_ex(address.place)
    if code == errno.EINPROGRESS:
        loop = asyncio.get_running_loop()
        writable: asyncio.Future[None] = loop.create_future()
        loop.add_writer(sock, _settle, writable)
        try:
            await writable
        finally:
            loop.remove_writer(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _settle(writable: asyncio.Future[None]) -> None:
    # The callback may run again before the writer is removed, or after the task was cancelled.
    if not writable.done():
        writable.set_result(None)


class _Race:
    """Attempts that begin one after the other; the first that succeeds is kept."""

    def __init__(self, places: Sequence[Address], deprioritize: Callable[[Address], None]) -> None:
        self._deprioritize = deprioritize
        self._order = {place: number for number, place in enumerate(places)}
        self._winner: socket.socket | None = None
        self._won_by = 0
        self._faults: list[OSError] = []
        self._running: dict[Address, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()

    async def run(self) -> socket.socket:
        try:
            async with asyncio.TaskGroup() as group:
                await self._run_attempts(group)
        except BaseException:
            # The caller was cancelled after an attempt had succeeded.
            if self._winner is not None:
                self._winner.close()
            raise
        if self._winner is not None:
            return self._winner
        refused = (it for it in self._faults if isinstance(it, ConnectionRefusedError))
        # A refused connection is more informative than an unreachable address.
        raise next(refused, self._faults[0])

    async def _run_attempts(self, group: asyncio.TaskGroup) -> None:
        for place in self._order:
            self._running[place] = group.create_task(
                self._attempt(place), name=f"connect to {place.place[0]!r}"
            )
            await self._wait()
            if self._winner is not None:
                break
        while self._winner is None and self._running:
            await self._wait(without_timeout=True)
        for place, task in self._running.items():
            # Attempts that began before the winner's are slow; later ones had too little time.
            if self._order[place] < self._won_by:
                self._deprioritize(place)
            task.cancel()

    async def _attempt(self, place: Address) -> None:
        try:
            sock = await _connected(place)
        except OSError as fault:
            self._faults.append(fault)
            self._deprioritize(place)
        else:
            if self._winner is None:
                self._winner, self._won_by = sock, self._order[place]
            else:
                sock.close()
        del self._running[place]
        self._ended.set()

    async def _wait(self, *, without_timeout: bool = False) -> None:
        """Wait until an attempt ends, or until the next may begin."""
        full = without_timeout or len(self._running) >= ATTEMPTS_AT_ONCE_MAX
        with suppress(TimeoutError):
            async with asyncio.timeout(None if full else ATTEMPT_DELAY_SECONDS):
                await self._ended.wait()
        self._ended.clear()
