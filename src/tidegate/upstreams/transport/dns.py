"""The addresses of a host: resolved again in time, in the order in which to try them."""

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import zip_longest
from typing import NamedTuple

# Further addresses of a name are ignored.
ADDRESSES_MAX = 256
# How long an address that did not answer is tried last.
DEPRIORITIZED_SECONDS = 30.0
# How long the last answer is used while the name server does not answer.
STALE_SECONDS_MAX = 300.0


class Address(NamedTuple):
    """One address of a host, in the form that sockets use."""

    family: int
    place: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


async def resolve(host: str, port: int) -> Sequence[Address]:
    """Resolve a host by the system; return its addresses in the system's order.

    Raises:
        socket.gaierror: it has none.
        UnicodeError: it is not a valid host name.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [Address(family, place) for family, _, _, _, place in found]


def connection_order(
    addresses: Sequence[Address], turn: int, deprioritized: Collection[Address] = ()
) -> Sequence[Address]:
    """Return the addresses in the order in which to try them.

    Families alternate, that of the first address first (RFC 8305). Within a family each turn begins
    with the next address, so that all of them get connections. Deprioritized ones
    come last.
    """
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address.family, []).append(address)
    turned = [_rotated(family, turn) for family in families.values()]
    mixed = [address for row in zip_longest(*turned) for address in row if address is not None]
    return sorted(mixed, key=deprioritized.__contains__)


def _rotated(family: list[Address], turn: int) -> list[Address]:
    start = turn % len(family)
    return family[start:] + family[:start]


class AddressCache:
    """The resolved addresses of one host, with ages by the time of one event loop."""

    def __init__(
        self, host: str, port: int, *, fresh_seconds: float, resolve: Resolve = resolve
    ) -> None:
        """Take the host; after `fresh_seconds` its name is resolved again."""
        self._host = host
        self._port = port
        self._fresh_seconds = fresh_seconds
        self._resolve = resolve
        self._known: Sequence[Address] = _literal_address(host, port)
        self._fresh_until = math.inf if self._known else -math.inf
        self._stale_until = -math.inf
        self._deprioritized: dict[Address, float] = {}
        self._turn = -1
        self._lock = asyncio.Lock()

    async def take(self) -> Sequence[Address]:
        """Return the addresses in the order in which the next connection should try them.

        Raises:
            OSError: the name can't be resolved, and its last addresses are too old.
            UnicodeError: it is not a valid host name.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._fresh_until:
            async with self._lock:
                # Another task may have resolved the name while this one waited.
                now = asyncio.get_running_loop().time()
                if now >= self._fresh_until:
                    await self._resolve_again(now)
        self._deprioritized = {
            address: end for address, end in self._deprioritized.items() if end > now
        }
        self._turn += 1
        return connection_order(self._known, self._turn, self._deprioritized)

    def deprioritize(self, address: Address) -> None:
        """Try this address last for a while: it did not answer, or too slowly."""
        self._deprioritized[address] = asyncio.get_running_loop().time() + DEPRIORITIZED_SECONDS

    def invalidate(self) -> None:
        """Resolve the name again for the next connection: no address answered."""
        if not math.isinf(self._fresh_until):
            self._fresh_until = -math.inf

    async def _resolve_again(self, now: float) -> None:
        try:
            found = await self._resolve(self._host, self._port)
            if not found:
                raise socket.gaierror(socket.EAI_NONAME, "no address")
        except OSError:
            if now >= self._stale_until:
                raise
            # Keep the last addresses while the name server does not answer.
            return
        self._known = list(dict.fromkeys(found))[:ADDRESSES_MAX]
        self._fresh_until = now + self._fresh_seconds
        self._stale_until = now + max(self._fresh_seconds, STALE_SECONDS_MAX)


def _literal_address(host: str, port: int) -> Sequence[Address]:
    """Return the address if the host is a literal one; empty if it is a name."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return ()
    return [Address(family, place) for family, _, _, _, place in found]
