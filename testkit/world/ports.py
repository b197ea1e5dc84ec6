"""Ledger, blobs, signals and model servers as one host sees them."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self, TypeVar, cast

from typing_extensions import override

from testkit.world.host import Host, Port
from tidegate.blobs.base import NAMES_MAX, BlobHealth, BlobStore, BlobWriter
from tidegate.domain.errors import ConnectFailed, ReplyBroken, StorageBroken, StorageFull, TimedOut
from tidegate.pubsub.base import Listener, PubSub
from tidegate.upstreams.base import Call, Reply, Upstream

T = TypeVar("T")
P = TypeVar("P")
_JUNK = b'\x00{"half a line'


class _Wrapped:
    """Passes attributes through, and coroutine methods through the host."""

    def __init__(self, port: object, host: Host) -> None:
        self._port = port
        self._host = host

    def __getattr__(self, name: str) -> object:
        found: object = getattr(self._port, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*arguments: object, **named: object) -> object:
            return await self._host.call(
                name, lambda: cast("Awaitable[object]", found(*arguments, **named))
            )

        self.__dict__[name] = call
        return call


def behind(port: P, host: Host) -> P:
    """Return a ledger as it is seen from the host."""
    wrapped: object = _Wrapped(port, host)
    return cast("P", wrapped)


class HostBlobs(BlobStore):
    """A blob store as a host sees it: calls may wait, find no room, or tear when the host dies.

    Every answer is true. `appends` may be False for one process although the store appends.
    """

    def __init__(self, blobs: BlobStore, host: Host, *, appends: bool) -> None:
        self._blobs = blobs
        self._host = host
        self._appends = appends

    @property
    @override
    def durable(self) -> bool:
        return self._blobs.durable

    @property
    @override
    def appends(self) -> bool:
        return self._appends

    @override
    def writer(self, name: str) -> BlobWriter:
        return _HostWriter(self, name)

    @override
    async def put(self, name: str, data: bytes) -> None:
        await self._write(
            f"put {name}", lambda: self._blobs.put(name, data), self._torn(name, data)
        )

    @override
    async def append(self, name: str, data: bytes, *, after: int) -> int:
        async def tear() -> None:
            cut = self._host.rng.randint(0, len(data))
            await self._blobs.append(name, data[:cut] + _JUNK, after=after)

        return await self._write(
            f"append {name}", lambda: self._blobs.append(name, data, after=after), tear
        )

    @override
    async def read(self, name: str, offset: int, length: int) -> bytes:
        return await self._steady(f"read {name}", lambda: self._blobs.read(name, offset, length))

    @override
    async def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return await self._steady(f"read {name}", lambda: self._blobs.read_ranges(name, ranges))

    @override
    async def delete(self, name: str) -> None:
        await self._steady(f"delete {name}", lambda: self._blobs.delete(name))

    @override
    async def list_names(
        self, prefix: str, *, after: str = "", limit: int = NAMES_MAX
    ) -> list[str]:
        return await self._steady(
            f"list {prefix}", lambda: self._blobs.list_names(prefix, after=after, limit=limit)
        )

    @override
    async def health(self) -> BlobHealth:
        return await self._blobs.health()

    @override
    async def length(self, name: str) -> int:
        return await self._steady(f"length {name}", lambda: self._blobs.length(name))

    @override
    async def count_leftovers(self) -> int:
        return await self._steady("count_leftovers", self._blobs.count_leftovers)

    @override
    async def remove_leftovers(self) -> int:
        return await self._steady("remove_leftovers", self._blobs.remove_leftovers)

    @override
    async def check(self) -> None:
        await self._steady("check", self._blobs.check)

    @override
    async def aclose(self) -> None:
        return

    async def pass_by(self) -> None:
        """Let a small write into a buffer take its time."""
        await self._host.begin(Port.BLOBS, "write")

    def _torn(self, name: str, data: bytes) -> Callable[[], Awaitable[None]]:
        async def tear() -> None:
            cut = self._host.rng.randint(0, len(data))
            await self._blobs.put(name, data[:cut] + _JUNK)

        return tear

    async def _write(
        self, what: str, ask: Callable[[], Awaitable[T]], tear: Callable[[], Awaitable[None]]
    ) -> T:
        host = self._host
        odds, rng = host.odds, host.rng
        if rng.random() < odds.crash_before and rng.random() < odds.torn:
            await tear()
            await host.crash(f"in the midst of {what}")
        if odds.flush_failed and rng.random() < odds.flush_failed:
            host.note(f"{what} -> the flush failed")
            host.is_disk_broken = True
        if host.is_disk_broken:
            raise StorageBroken(f"The flush of {what} failed (simulated).")
        if rng.random() < odds.full:
            if self._appends and what.startswith("append") and rng.random() < odds.torn:
                await tear()
            host.note(f"{what} -> no room")
            raise StorageFull(f"No room for {what} (simulated).")
        return await self._steady(what, ask)

    async def _steady(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        host = self._host
        await host.begin(Port.BLOBS, what)
        cut = host.cut(Port.BLOBS)
        loop = asyncio.get_running_loop()
        if cut is not None and not cut.one_way:
            await asyncio.sleep(cut.until - loop.time())
            await host.begin(Port.BLOBS, what)
        answer = await ask()
        host.note(what)
        if cut is not None and cut.one_way:
            await asyncio.sleep(max(0.0, cut.until - loop.time()))
        await host.end(what)
        return answer


class _HostWriter(BlobWriter):
    """Gathers the bytes here, so that a crash may leave any part of them behind."""

    def __init__(self, blobs: HostBlobs, name: str) -> None:
        self._blobs = blobs
        self._name = name
        self._data = bytearray()

    @override
    async def write(self, data: bytes) -> None:
        await self._blobs.pass_by()
        self._data += data

    @override
    async def finish(self) -> int:
        await self._blobs.put(self._name, bytes(self._data))
        return len(self._data)

    @override
    async def __aenter__(self) -> Self:
        return self

    @override
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._data.clear()


class HostPubSub(PubSub):
    """A pubsub as a host sees it: some messages are lost, perhaps all."""

    def __init__(self, pubsub: PubSub, host: Host) -> None:
        self._pubsub = pubsub
        self._host = host

    @override
    def publish(self, topic: str) -> None:
        host = self._host
        if host.alive and host.rng.random() >= host.odds.signal_lost:
            self._pubsub.publish(topic)

    @override
    def listen(self, prefixes: tuple[str, ...]) -> AbstractContextManager[Listener]:
        return self._pubsub.listen(prefixes)


class HostUpstream(Upstream):
    """A model server as a host sees it. `send` is what the server does with a call."""

    def __init__(self, host: Host, send: Callable[[Call], Awaitable[Reply]]) -> None:
        self._host = host
        self._send = send

    @override
    async def send(self, call: Call) -> Reply:
        host = self._host
        await host.begin(Port.UPSTREAM, "send")
        cut = host.cut(Port.UPSTREAM)
        if cut is not None and not cut.one_way:
            raise ConnectFailed("There is no way to the model server (simulated).")
        reply = await self._send(call)
        if cut is not None:
            await asyncio.sleep(host.rng.uniform(0.0, 1.0))
            if host.rng.random() < 0.5:  # noqa: PLR2004 - a coin
                raise ReplyBroken("The reply broke off (simulated).")
            raise TimedOut("The reply never came (simulated).", phase="total")
        await host.end("send")
        return reply

    @override
    async def aclose(self) -> None:
        return
