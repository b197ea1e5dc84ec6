"""What may go wrong at a port, drawn from a seed.

A `Host` stands for one process. Its ports are wrapped: before and after each call something may
happen, as likely as `Odds` says. Each odds is a number between 0 and 1, for each call.
"""

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar, cast

from typing_extensions import override

from tidegate.blobs.base import BlobStore, BlobWriter
from tidegate.domain.errors import StorageFull, StoreUnavailable
from tidegate.signals.base import Listener, Signals

T = TypeVar("T")
P = TypeVar("P")
_PAUSE_LEASES = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """How likely each fault is at each port call, and how late calls may be."""

    crash_before: float = 0.0
    crash_after: float = 0.0
    answer_lost: float = 0.0
    refused: float = 0.0
    full: float = 0.0
    delivered_twice: float = 0.0
    paused: float = 0.0
    signal_lost: float = 0.0
    latency_seconds_max: float = 0.01

    @classmethod
    def swarm(cls, chance: random.Random) -> "Odds":
        """Draw a world in which some faults are common and others never happen."""

        def odds(most: float) -> float:
            return chance.uniform(0.0, most) if chance.random() < 0.6 else 0.0  # noqa: PLR2004 - a bit more often than not

        return cls(
            crash_before=odds(0.01),
            crash_after=odds(0.01),
            answer_lost=odds(0.1),
            refused=odds(0.1),
            full=odds(0.05),
            delivered_twice=odds(0.1),
            paused=odds(0.01),
            signal_lost=1.0 if chance.random() < 0.2 else odds(0.5),  # noqa: PLR2004 - one world in five is deaf
            latency_seconds_max=chance.choice([0.0, 0.002, 0.02, 0.2]),
        )


class Host:
    """One simulated process: alive until it crashes, and paused now and then."""

    def __init__(
        self, name: str, chance: random.Random, odds: Odds, *, lease_seconds: float
    ) -> None:
        self.name = name
        self.alive = True
        self.calls = 0
        self._chance = chance
        self._odds = odds
        self._lease_seconds = lease_seconds
        self._resumed_at = 0.0
        self.task: asyncio.Task[None] | None = None
        self.trace: list[str] = []

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self._odds = Odds(latency_seconds_max=self._odds.latency_seconds_max)

    def loses_signal(self) -> bool:
        """Say whether the next announcement is lost."""
        return self._chance.random() < self._odds.signal_lost

    async def call(self, name: str, ask: Callable[[], Awaitable[T]]) -> T:
        """Make one port call, with whatever goes wrong around it."""
        odds, chance = self._odds, self._chance
        self.calls += 1
        await self._wait()
        if chance.random() < odds.crash_before:
            await self._crash(f"before {name}")
        if chance.random() < odds.refused:
            raise StoreUnavailable(f"{name} was refused (simulated).")
        if chance.random() < odds.full:
            raise StorageFull(f"No room for {name} (simulated).")
        if chance.random() < odds.delivered_twice:
            await self._quietly(ask)
        answer = await ask()
        if chance.random() < odds.crash_after:
            await self._crash(f"after {name}")
        await self._wait()
        if chance.random() < odds.answer_lost:
            raise StoreUnavailable(f"The answer of {name} was lost (simulated).")
        return answer

    async def steady(
        self, name: str, ask: Callable[[], Awaitable[T]], *, writes: bool = False
    ) -> T:
        """Make a call that may crash, be late or find no room, but is answered when it returns."""
        odds, chance = self._odds, self._chance
        self.calls += 1
        await self._wait()
        if writes and chance.random() < odds.full:
            raise StorageFull(f"No room for {name} (simulated).")
        if chance.random() < odds.crash_before:
            await self._crash(f"before {name}")
        answer = await ask()
        if chance.random() < odds.crash_after:
            await self._crash(f"after {name}")
        return answer

    @staticmethod
    async def _quietly(ask: Callable[[], Awaitable[T]]) -> None:
        # The first delivery's answer goes nowhere; if it is refused, so is the second.
        try:
            await ask()
        except Exception:  # noqa: BLE001 - the second delivery gives the same answer to who asked
            return

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        if not self.alive:
            await self._vanish()
        if self._chance.random() < self._odds.paused:
            self._resumed_at = loop.time() + _PAUSE_LEASES * self._lease_seconds
        delay = self._chance.uniform(0.0, self._odds.latency_seconds_max)
        await asyncio.sleep(max(delay, self._resumed_at - loop.time()))
        if not self.alive:
            await self._vanish()

    async def _crash(self, where: str) -> None:
        self.alive = False
        self.trace.append(f"crash {where}")
        assert self.task is not None, "the host runs nothing"
        self.task.cancel()
        await self._vanish()

    async def _vanish(self) -> None:
        """A dead process makes no calls: whatever still runs of it only waits to be cancelled."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        await asyncio.get_running_loop().create_future()


class _Wrapped:
    """Passes attributes through, and coroutine methods through the host."""

    def __init__(self, port: object, host: Host, steady: frozenset[str]) -> None:
        self._port = port
        self._host = host
        self._steady = steady

    def __getattr__(self, name: str) -> object:
        found: object = getattr(self._port, name)
        if not inspect.iscoroutinefunction(found):
            return found
        through = self._host.steady if name in self._steady else self._host.call

        async def call(*arguments: object, **named: object) -> object:
            return await through(
                name, lambda: cast("Awaitable[object]", found(*arguments, **named))
            )

        return call


def behind(port: P, host: Host, *, steady: frozenset[str] = frozenset()) -> P:
    """Return the port as it is seen from the host. Calls named in `steady` are never refused."""
    wrapped: object = _Wrapped(port, host, steady)
    return cast("P", wrapped)


class HostBlobs(BlobStore):
    """A blob store as it is seen from a host: it may crash around each call, but never lies."""

    def __init__(self, blobs: BlobStore, host: Host) -> None:
        self._blobs = blobs
        self._host = host

    @property
    @override
    def durable(self) -> bool:
        return self._blobs.durable

    @property
    @override
    def appends(self) -> bool:
        return self._blobs.appends

    @override
    def writer(self, name: str) -> BlobWriter:
        return _HostWriter(self._blobs.writer(name), self._host)

    @override
    async def put(self, name: str, data: bytes) -> None:
        await self._host.steady("put", lambda: self._blobs.put(name, data), writes=True)

    @override
    async def append(self, name: str, data: bytes) -> int:
        return await self._host.steady(
            "append", lambda: self._blobs.append(name, data), writes=True
        )

    @override
    async def read(self, name: str, offset: int, length: int) -> bytes:
        return await self._host.steady("read", lambda: self._blobs.read(name, offset, length))

    @override
    async def delete(self, name: str) -> None:
        await self._host.steady("delete", lambda: self._blobs.delete(name))

    @override
    async def list_names(self, prefix: str) -> list[str]:
        return await self._host.steady("list_names", lambda: self._blobs.list_names(prefix))

    @override
    async def length(self, name: str) -> int:
        return await self._host.steady("length", lambda: self._blobs.length(name))

    @override
    async def count_leftovers(self) -> int:
        return await self._host.steady("count_leftovers", self._blobs.count_leftovers)

    @override
    async def remove_leftovers(self) -> int:
        return await self._host.steady("remove_leftovers", self._blobs.remove_leftovers)

    @override
    async def check(self) -> None:
        await self._host.steady("check", self._blobs.check)

    @override
    async def aclose(self) -> None:
        return


class _HostWriter(BlobWriter):
    def __init__(self, writer: BlobWriter, host: Host) -> None:
        self._writer = writer
        self._host = host

    @override
    async def write(self, data: bytes) -> None:
        await self._host.steady("write", lambda: self._writer.write(data), writes=True)

    @override
    async def finish(self) -> int:
        return await self._host.steady("finish", self._writer.finish, writes=True)

    @override
    async def __aenter__(self) -> Self:
        await self._writer.__aenter__()
        return self

    @override
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._writer.__aexit__(kind, error, trace)


class HostSignals(Signals):
    """Signals as they are heard and sent by a host: some are lost, perhaps all."""

    def __init__(self, signals: Signals, host: Host) -> None:
        self._signals = signals
        self._host = host

    @override
    def notify(self, topic: str) -> None:
        if self._host.alive and not self._host.loses_signal():
            self._signals.notify(topic)

    @override
    def listen(self, prefixes: tuple[str, ...]) -> AbstractContextManager[Listener]:
        return self._signals.listen(prefixes)
