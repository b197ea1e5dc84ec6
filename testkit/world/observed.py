"""Ports that show an account every effect, at the moment that it happens."""

import inspect
from collections.abc import Awaitable, Callable
from typing import cast

from typing_extensions import override

from testkit.world.blob_account import BlobAccount
from testkit.world.broken import Broken, Complaints
from tidegate.blobs.memory import MemoryBlobs
from tidegate.stores.base import Store


class _Watched:
    """A ledger whose effects an account records. Nothing else may happen in between."""

    def __init__(self, store: Store, listeners: tuple[object, ...], complaints: Complaints) -> None:
        hooks = {name for one in listeners for name in dir(one) if name.startswith("after_")}
        unknown = {name for name in hooks if not hasattr(store, name.removeprefix("after_"))}
        assert not unknown, f"no verbs of a ledger: {unknown}"
        self._store = store
        self._listeners = listeners
        self._complaints = complaints

    def __getattr__(self, name: str) -> object:
        found: object = getattr(self._store, name)
        if not inspect.iscoroutinefunction(found):
            return found
        hears = [
            cast("Callable[..., Awaitable[None]]", hear)  # type: ignore[explicit-any]  # a verb with its own arguments
            for listener in self._listeners
            if (hear := getattr(listener, f"after_{name}", None)) is not None
        ]

        async def call(*arguments: object, **named: object) -> object:
            answer: object = await cast("Awaitable[object]", found(*arguments, **named))
            try:
                for hear in hears:
                    await hear(answer, *arguments, **named)
            except Broken as error:
                self._complaints.note(error)
                raise
            return answer

        self.__dict__[name] = call
        return call


def watched(store: Store, complaints: Complaints, *listeners: object) -> Store:
    """Return the same ledger, whose effects these listeners get: by a method `after_VERB` each."""
    port: object = _Watched(store, listeners, complaints)
    return cast("Store", port)


class WatchedBlobs(MemoryBlobs):
    """Blobs in memory, with an account that records each delete."""

    def __init__(self, complaints: Complaints, *, appends: bool) -> None:
        super().__init__(appends=appends)
        self.holdings: BlobAccount | None = None
        self._complaints = complaints

    @override
    async def delete(self, name: str) -> None:
        if self.holdings is not None and await self._exists(name):
            try:
                self.holdings.deleted(name)
            except Broken as error:
                self._complaints.note(error)
                raise
        await super().delete(name)

    async def vanish(self, name: str) -> None:
        """Lose a blob that may be needed: a fault."""
        await super().delete(name)

    async def _exists(self, name: str) -> bool:
        return name in await self.list_names(name)
