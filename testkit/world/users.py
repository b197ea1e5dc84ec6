"""The users: they upload, create, watch, download, cancel and delete, and remember the answers.

What was acknowledged must exist; what was not must exist wholly or not at all.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from testkit.world.api import Front, NoReply
from testkit.world.broken import Broken
from testkit.world.environment import ENDPOINT, FAULTS_SECONDS, MODELS, TENANTS, Environment
from testkit.world.odds import Odds
from tidegate.access.principal import Principal
from tidegate.application.batches import cancel_batch, create_batch, read_batch
from tidegate.application.context import Application
from tidegate.application.files import delete_file, open_content, upload
from tidegate.application.upload_form import Field, FileStart, FormEvent
from tidegate.domain.batch import NEXT, Batch, Status
from tidegate.domain.errors import (
    BlobMissing,
    ClaimLost,
    Conflict,
    NotFound,
    StorageFull,
    StoreUnavailable,
)
from tidegate.wire.batch_request import BatchRequest

T = TypeVar("T")
LINES_MAX = 40
_LONG = "24h"
_SHORT_WINDOW = 0.3
_WITHOUT_KEY = 0.2
_DELETES_INPUT = 0.3
_CANCELS = 0.3
_DELETES_RESULTS = 0.1
_DOWNLOADS = 0.5
_LATE = 0.4
LATE_SECONDS = FAULTS_SECONDS + 10.0


@dataclass(slots=True)
class Order:
    """What one user wanted, tried and received. `names` are the custom_ids of its lines.

    `poison` names the lines that kill every process that sends them;
    `starts_at` is when it begins, in loop time.
    """

    principal: Principal
    number: int
    names: list[str]
    data: bytes
    keyed: bool
    window: str
    models: tuple[str, ...]
    poison: frozenset[str]
    starts_at: float
    attempts: int = 0
    file_id: str | None = None
    batch_id: str | None = None
    asked_to_cancel: bool = False
    deleted: set[str] = field(default_factory=set)
    seen: dict[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return what marks its files and batches."""
        return f"order-{self.number}"


class User:
    """One user with one batch."""

    def __init__(self, ground: Environment, front: Front, number: int) -> None:
        self._ground = ground
        self._front = front
        self._chance: random.Random = ground.fork()
        self._last: Batch | None = None
        self.order = _drawn(self._chance, number, ground.odds)
        ground.poison |= self.order.poison
        ground.report.lines += len(self.order.names)

    async def live(self) -> None:
        """Upload, create, and follow the batch until it has ended."""
        order = self.order
        await asyncio.sleep(order.starts_at)
        file = await self._insist(self._upload)
        order.file_id = file
        async with asyncio.TaskGroup() as group:
            if self._chance.random() < _DELETES_INPUT:
                group.create_task(self._delete_later(file), name="delete")
            order.batch_id = await self._insist(self._create)
        await self._follow(order.batch_id)

    # Upload and create

    async def _upload(self) -> str:
        self.order.attempts += 1
        file = await self._front.ask(
            "upload", lambda app: upload(app, self.order.principal, self._form())
        )
        return file.id

    async def _form(self) -> AsyncIterator[FormEvent]:
        """Send the form piece by piece; it may break off."""
        rng, odds = self._chance, self._ground.odds
        breaks_off = not self._ground.calm and rng.random() < odds.client_gone
        if rng.random() < 0.5:  # noqa: PLR2004 - a coin
            yield Field(name="purpose", value="batch")
        yield FileStart(filename=self.order.name)
        data = self.order.data
        while data:
            size = rng.randint(1, 1 + 2 * len(self.order.data) // 3)
            yield data[:size]
            data = data[size:]
            await asyncio.sleep(rng.uniform(0.0, odds.latency_seconds_max))
            if breaks_off and rng.random() < 0.5:  # noqa: PLR2004 - a coin
                raise NoReply("The client went away (simulated).")
        yield Field(name="purpose", value="batch")

    async def _create(self) -> str:
        order = self.order
        assert order.file_id is not None, order
        request = BatchRequest(
            input_file_id=order.file_id,
            endpoint=ENDPOINT,
            completion_window=order.window,
            metadata={"order": order.name},
        )
        key = order.name if order.keyed else None
        batch = await self._front.ask(
            "create", lambda app: create_batch(app, order.principal, request, idempotency_key=key)
        )
        return batch.id

    async def _delete_later(self, file_id: str) -> None:
        await asyncio.sleep(self._chance.uniform(0.0, self._chance.choice([0.1, 5.0])))
        await self._delete(file_id)

    # Following

    async def _follow(self, batch_id: str) -> None:
        rng, loop = self._chance, asyncio.get_running_loop()
        order = self.order
        cancel_at = (
            loop.time() + rng.uniform(0.0, FAULTS_SECONDS) if rng.random() < _CANCELS else None
        )
        while True:
            await asyncio.sleep(rng.uniform(0.0, 3.0))
            batch = await self._insist(lambda: self._read(batch_id))
            self._see(batch)
            if cancel_at is not None and loop.time() >= cancel_at:
                cancel_at = None
                order.asked_to_cancel = True
                await self._attempt(lambda: self._cancel(batch_id))
            for file_id in (batch.output_file_id, batch.error_file_id):
                if file_id is not None and rng.random() < _DOWNLOADS:
                    await self._attempt(partial(self._download, file_id))
                if file_id is not None and rng.random() < _DELETES_RESULTS:
                    await self._attempt(partial(self._delete, file_id))
            if batch.is_terminal:
                return

    async def _read(self, batch_id: str) -> Batch:
        return await self._front.ask(
            "read", lambda app: read_batch(app, self.order.principal, batch_id)
        )

    def _see(self, batch: Batch) -> None:
        """Hold what is read to what was read before."""
        before, self._last = self._last or batch, batch
        if batch.status is not before.status and batch.status not in _reachable(before.status):
            raise Broken(f"{batch.id} went from {before.status} to {batch.status}")
        if batch.counts.completed + batch.counts.failed > batch.counts.total:
            raise Broken(f"{batch.id} counts more lines than it has: {batch.counts}")

    async def _cancel(self, batch_id: str) -> None:
        await self._front.ask(
            "cancel", lambda app: cancel_batch(app, self.order.principal, batch_id)
        )

    async def _download(self, file_id: str) -> None:
        """Resume the last download of this file, or begin again and compare."""
        rng = self._chance
        seen = self.order.seen.get(file_id, b"")
        start = len(seen) if rng.random() < 0.7 else rng.randint(0, len(seen))  # noqa: PLR2004 - mostly resumed
        began = self._ground.clock.passed_seconds
        try:
            data = await self._front.ask("download", lambda app: self._content(app, file_id, start))
        except BlobMissing:
            if self._ground.clock.passed_seconds > began:
                # A day has passed in its midst, and nobody keeps old bytes for that long.
                return
            if not self._ground.holdings.has_lost(file_id):
                raise
            order = self.order
            order.seen.pop(file_id, None)
            return
        if self._ground.holdings.was_repaired(file_id):
            return
        overlap = seen[start : start + len(data)]
        if data[: len(overlap)] != overlap:
            raise Broken(f"bytes of {file_id} have changed under a reader")
        if start + len(data) > len(seen):
            self.order.seen[file_id] = seen[:start] + data

    async def _content(self, app: Application, file_id: str, start: int) -> bytes:
        content = await open_content(app, self.order.principal, file_id)
        left = content.file.bytes - start
        if left < 0 and self._ground.holdings.was_repaired(file_id):
            return b""
        if left < 0:
            raise Broken(f"{file_id} became shorter than {start} bytes: {content.file}")
        length = self._chance.randint(0, left)
        pieces = []
        async for piece in content.read(start, length):
            pieces.append(piece)
            await asyncio.sleep(self._chance.uniform(0.0, 1.0))
        return b"".join(pieces)

    async def _delete(self, file_id: str) -> None:
        self.order.deleted.add(file_id)
        try:
            await self._insist(lambda: self._delete_once(file_id))
        except NotFound:
            return
        except Conflict:
            self.order.deleted.discard(file_id)

    async def _delete_once(self, file_id: str) -> None:
        await self._front.ask("delete", lambda app: delete_file(app, self.order.principal, file_id))

    # Asking

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Try again until there is an answer, as a good client does."""
        while True:
            try:
                return await ask()
            except (NoReply, StoreUnavailable, StorageFull, ClaimLost, TimeoutError):
                await asyncio.sleep(self._chance.uniform(0.0, 2.0))

    async def _attempt(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Try once; no answer, and a no, are answers too."""
        try:
            await ask()
        except (NoReply, StoreUnavailable, StorageFull, TimeoutError, Conflict, NotFound):
            return


def _drawn(rng: random.Random, number: int, odds: Odds) -> Order:
    names = [f"{number}-line-{line}" for line in range(rng.randint(1, LINES_MAX))]
    models = tuple(rng.sample(MODELS, rng.randint(1, len(MODELS))))
    lines = [_input_line(name, rng.choice(models)) for name in names]
    window = f"{rng.randint(5, 90)}s" if rng.random() < _SHORT_WINDOW else _LONG
    return Order(
        principal=Principal(tenant=rng.choice(TENANTS)),
        number=number,
        names=names,
        data=b"".join(lines),
        keyed=rng.random() >= _WITHOUT_KEY,
        window=window,
        models=models,
        poison=frozenset(name for name in names if rng.random() < odds.poison),
        starts_at=rng.uniform(0.0, LATE_SECONDS) if rng.random() < _LATE else 0.0,
    )


def _input_line(name: str, model: str) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": name}]}
    line = {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": body}
    return json.dumps(line).encode() + b"\n"


def _reachable(status: Status) -> set[Status]:
    found: set[Status] = set()
    edge = set(NEXT[status])
    while edge:
        found |= edge
        edge = {following for near in edge for following in NEXT[near]} - found
    return found
