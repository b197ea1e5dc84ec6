"""Connect to whichever address of a host answers first (RFC 8305, "happy eyeballs").

Written out here because one of the event loops knows nothing of it.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from tidegate.upstreams.addresses import Address, Addresses

# How long one address may stay silent before the next is tried beside it; the RFC's own choice.
ATTEMPT_DELAY_SECONDS = 0.25
# Attempts that may run at once; one more begins when one of them fails.
ATTEMPTS_AT_ONCE_MAX = 6


async def dial(addresses: Addresses) -> socket.socket:
    """Return a socket that is connected to one of the addresses.

    Cancelling it leaves no socket behind.

    Raises:
        OSError: the host has no address, or none of them can be reached.
        UnicodeError: the name of the host is none.
    """
    places = await addresses.take()
    try:
        if len(places) == 1:
            return await _connected(places[0])
        return await _Race(places, addresses.shun).run()
    except OSError:
        addresses.doubt()
        raise


async def _connected(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # Loops see to this for connections of their own making only.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await _connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(sock: socket.socket, address: Address) -> None:
    """Connect a socket.

    The loops' own way would be shorter; one of them looks each address up again in a thread, for
    most of the cost of a connection.
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
    # It may stay writable for a turn of the loop, and the waiting may have been cancelled.
    if not writable.done():
        writable.set_result(None)


class _Race:
    """Attempts that begin one after the other, of which the first to succeed is kept."""

    def __init__(self, places: Sequence[Address], shun: Callable[[Address], None]) -> None:
        self._shun = shun
        self._order = {place: number for number, place in enumerate(places)}
        self._winner: socket.socket | None = None
        self._won_by = 0
        self._faults: list[OSError] = []
        self._running: dict[Address, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    async def run(self) -> socket.socket:
        try:
            async with asyncio.TaskGroup() as group:
                await self._hold(group)
        except BaseException:
            # The caller was cancelled just as an attempt had succeeded.
            if self._winner is not None:
                self._winner.close()
            raise
        if self._winner is not None:
            return self._winner
        refused = (it for it in self._faults if isinstance(it, ConnectionRefusedError))
        # That somebody refuses says more than that another address leads nowhere.
        raise next(refused, self._faults[0])

    async def _hold(self, group: asyncio.TaskGroup) -> None:
        for place in self._order:
            self._running[place] = group.create_task(
                self._attempt(place), name=f"connect to {place.place[0]!r}"
            )
            await self._wait()
            if self._winner is not None:
                break
        while self._winner is None and self._running:
            await self._wait(for_ever=True)
        for place, task in self._running.items():
            # Whoever was overtaken is slow; whoever began later just had no time.
            if self._order[place] < self._won_by:
                self._shun(place)
            task.cancel()

    async def _attempt(self, place: Address) -> None:
        try:
            sock = await _connected(place)
        except OSError as fault:
            self._faults.append(fault)
            self._shun(place)
        else:
            if self._winner is None:
                self._winner, self._won_by = sock, self._order[place]
            else:
                sock.close()
        del self._running[place]
        self._news.set()

    async def _wait(self, *, for_ever: bool = False) -> None:
        """Wait until an attempt ends, or until the next may begin."""
        full = for_ever or len(self._running) >= ATTEMPTS_AT_ONCE_MAX
        with suppress(TimeoutError):
            async with asyncio.timeout(None if full else ATTEMPT_DELAY_SECONDS):
                await self._news.wait()
        self._news.clear()
