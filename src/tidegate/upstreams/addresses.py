"""Where a host is: asked anew in time, and in the order in which to try its addresses."""

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import zip_longest
from typing import NamedTuple

# What a name leads to is looked at no further.
ADDRESSES_MAX = 256
# How long an address that did not answer is tried after the others.
SHUNNED_SECONDS = 30.0
# How long the last answer serves when the name server gives none.
STALE_SECONDS_MAX = 300.0


class Address(NamedTuple):
    """One address of a host, as sockets take it."""

    family: int
    place: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


async def resolve(host: str, port: int) -> Sequence[Address]:
    """Ask the system for the addresses of a host, in the order that it prefers.

    Raises:
        socket.gaierror: it has none.
        UnicodeError: the name is none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [Address(family, place) for family, _, _, _, place in found]


def in_order(
    addresses: Sequence[Address], turn: int, shunned: Collection[Address] = ()
) -> Sequence[Address]:
    """Return the addresses in the order in which to try them.

    The families take turns, that of the first address first, as RFC 8305 asks. Inside a family each
    turn begins with the next address, so that all of them get connections. Shunned ones come last.
    """
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address.family, []).append(address)
    turned = [_rotated(family, turn) for family in families.values()]
    mixed = [address for row in zip_longest(*turned) for address in row if address is not None]
    return sorted(mixed, key=shunned.__contains__)


def _rotated(family: list[Address], turn: int) -> list[Address]:
    start = turn % len(family)
    return family[start:] + family[:start]


class Addresses:
    """Knows the addresses of one host; belongs to one event loop, by whose time it judges."""

    def __init__(
        self, host: str, port: int, *, fresh_seconds: float, resolve: Resolve = resolve
    ) -> None:
        """Take the host; `fresh_seconds` is how long an answer is used before it is asked anew."""
        self._host = host
        self._port = port
        self._fresh_seconds = fresh_seconds
        self._resolve = resolve
        self._known: Sequence[Address] = _written_out(host, port)
        self._fresh_until = math.inf if self._known else -math.inf
        self._stale_until = -math.inf
        self._shunned: dict[Address, float] = {}
        self._turn = -1
        self._asking = asyncio.Lock()

    async def take(self) -> Sequence[Address]:
        """Return the addresses in the order in which the next connection should try them.

        Raises:
            OSError: nobody knows the name, and what was known of it is too old.
            UnicodeError: the name is none.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._fresh_until:
            async with self._asking:
                # Whoever waited for another's answer takes that.
                now = asyncio.get_running_loop().time()
                if now >= self._fresh_until:
                    await self._ask(now)
        self._shunned = {address: end for address, end in self._shunned.items() if end > now}
        self._turn += 1
        return in_order(self._known, self._turn, self._shunned)

    def shun(self, address: Address) -> None:
        """Hear that an address did not answer, or too slowly: it is tried last for a while."""
        self._shunned[address] = asyncio.get_running_loop().time() + SHUNNED_SECONDS

    def doubt(self) -> None:
        """Hear that none of the addresses answers: the next connection asks for others."""
        if not math.isinf(self._fresh_until):
            self._fresh_until = -math.inf

    async def _ask(self, now: float) -> None:
        try:
            found = await self._resolve(self._host, self._port)
            if not found:
                raise socket.gaierror(socket.EAI_NONAME, "no address")
        except OSError:
            if now >= self._stale_until:
                raise
            # A name server that is away for a moment shall stop nobody.
            return
        self._known = list(dict.fromkeys(found))[:ADDRESSES_MAX]
        self._fresh_until = now + self._fresh_seconds
        self._stale_until = now + max(self._fresh_seconds, STALE_SECONDS_MAX)


def _written_out(host: str, port: int) -> Sequence[Address]:
    """Return the address that the host is written as; empty if it is a name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return ()
    return [Address(family, place) for family, _, _, _, place in found]
