"""A small deployment in memory and virtual time, without faults: for scenario tests."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import msgspec

from tidegate.blobs.base import BlobStore
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.batch import Batch, Status
from tidegate.domain.file import File, Part, Purpose
from tidegate.endpoints.catalogue import Catalogue
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.processor.context import OpenPlanSandbox, ProcessorContext
from tidegate.processor.leases.renewer import TaskLeaseRenewer
from tidegate.processor.observer import NullObserver, Observer
from tidegate.processor.service import Processor
from tidegate.processor.settings import Settings
from tidegate.pubsub.base import WORK, PubSub, batch_topic
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.runtime.clock import Clock
from tidegate.stores.base import Store
from tidegate.stores.memory import MemoryStore
from tidegate.testing.ids import SeededIds
from tidegate.testing.loop import LoopClock
from tidegate.testing.pubsub import SilentSignals
from tidegate.testing.upstreams import Begun
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream

TENANT = "default"
CHAT = "/v1/chat/completions"
Answer = Callable[[Call], Awaitable[Reply]]


class ResponseLine(msgspec.Struct):
    """The response of a result line."""

    status_code: int
    request_id: str
    body: msgspec.Raw


class ErrorLine(msgspec.Struct):
    """The error of a result line."""

    code: str
    message: str


class ResultLine(msgspec.Struct):
    """One line of an output or error file."""

    id: str
    custom_id: str
    response: ResponseLine | None
    error: ErrorLine | None


def request_line(
    custom_id: str, model: str = "m", *, content: str = "hi", url: str = CHAT
) -> bytes:
    """Return one line of a chat batch."""
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    line = {"custom_id": custom_id, "method": "POST", "url": url, "body": body}
    return json.dumps(line).encode() + b"\n"


def ok(model: str = "m", *, tokens: int = 1) -> Reply:
    """Return a sound chat reply."""
    usage = {"prompt_tokens": tokens, "completion_tokens": tokens}
    return Reply(status=200, headers={}, body=json.dumps({"model": model, "usage": usage}).encode())


def model_of(call: Call) -> str:
    """Return the model that a call asks for."""
    return msgspec.json.decode(call.body, type=_Body).model


class _Body(msgspec.Struct):
    model: str


@dataclass(slots=True)
class Deployment:
    """Ledger, blobs and signals in memory, and the calls of a user.

    With `begins`, model servers begin most calls at once, as over idle connections.
    """

    store: Store
    blobs: BlobStore
    pubsub: PubSub
    clock: Clock
    ids: SeededIds
    begins: bool = False

    @classmethod
    def make(cls, *, deaf: bool = False) -> "Deployment":
        """Return an empty deployment on this loop; a deaf one only polls and begins no calls."""
        clock = LoopClock(asyncio.get_running_loop())
        return cls(
            MemoryStore(clock),
            MemoryBlobs(appends=True),
            SilentSignals() if deaf else MemoryPubSub(),
            clock,
            SeededIds(random.Random(0)),
            begins=not deaf,
        )

    async def upload(self, data: bytes) -> str:
        """Store a batch file; return its id."""
        upload_id, file_id = self.ids.make("up_"), self.ids.make("file-")
        blob = f"uploads/{upload_id}"
        now = self.clock.now()
        await self.store.begin_upload(upload_id, tenant=TENANT, blob=blob, at=now)
        await self.blobs.put(blob, data)
        file = File(
            id=file_id,
            tenant=TENANT,
            filename="input.jsonl",
            purpose=Purpose.BATCH,
            bytes=len(data),
            created_at=now,
        )
        parts = [Part(blob=blob, offset=0, length=len(data))] if data else []
        await self.store.finish_upload(upload_id, file, parts)
        return file_id

    async def create(self, file_id: str, *, window_seconds: float = 86_400.0) -> Batch:
        """Create a batch over a file."""
        now = self.clock.now()
        batch = await self.store.create_batch(
            Batch(
                id=self.ids.make("batch_"),
                tenant=TENANT,
                endpoint=CHAT,
                input_file_id=file_id,
                completion_window="24h",
                status=Status.VALIDATING,
                created_at=now,
                expires_at=now + window_seconds,
            )
        )
        self.pubsub.publish(WORK)
        return batch

    async def submit(self, lines: Sequence[bytes], *, window_seconds: float = 86_400.0) -> Batch:
        """Upload lines and create a batch over them."""
        return await self.create(await self.upload(b"".join(lines)), window_seconds=window_seconds)

    async def cancel(self, batch_id: str) -> Batch:
        """Cancel a batch as a user does."""
        batch = await self.store.cancel_batch(TENANT, batch_id, at=self.clock.now())
        self.pubsub.publish(batch_topic(batch_id))
        return batch

    async def get(self, batch_id: str) -> Batch:
        """Return the batch as it is now."""
        return await self.store.get_batch(TENANT, batch_id)

    async def end_of(self, batch_id: str, *, within_seconds: float = 86_400.0) -> Batch:
        """Wait until a batch is terminal."""
        async with asyncio.timeout(within_seconds):
            with self.pubsub.listen(("batch/",)) as listener:
                while not (batch := await self.get(batch_id)).is_terminal:
                    await listener.wait(0.25)
        return batch

    async def results(self, batch: Batch) -> dict[str, ResultLine]:
        """Return every result line of a batch by custom_id, from output and error file."""
        found: dict[str, ResultLine] = {}
        files = (
            (batch.output_file_id, batch.output_bytes),
            (batch.error_file_id, batch.error_bytes),
        )
        for file_id, size in files:
            if file_id is None or not size:
                continue
            for line in (await self.content(file_id)).splitlines():
                result = msgspec.json.decode(line, type=ResultLine)
                assert result.custom_id not in found, f"{result.custom_id} came twice"
                found[result.custom_id] = result
        return found

    async def content(self, file_id: str) -> bytes:
        """Return the bytes of a file."""
        _, parts = await self.store.get_parts(TENANT, file_id)
        return b"".join(
            [await self.blobs.read(part.blob, part.offset, part.length) for part in parts]
        )

    @asynccontextmanager
    async def processor(
        self,
        routes: Routes | Mapping[str, Answer] | Answer,
        settings: Settings | None = None,
        *,
        open_plan_sandbox: OpenPlanSandbox | None = None,
        observer: Observer | None = None,
    ) -> AsyncIterator[Processor]:
        """Run a processor; it is stopped, and has handed everything back, at the end."""
        chosen = settings or Settings()
        chosen_routes = routes if isinstance(routes, Routes) else _routes(routes)
        gateway = chosen_routes.default.upstream if chosen_routes.default else None
        processor = Processor(
            ProcessorContext(
                settings=chosen,
                store=self.store,
                blobs=self.blobs,
                pubsub=self.pubsub,
                routes=chosen_routes,
                clock=self.clock,
                ids=self.ids,
                rng=random.Random(1),
                make_renewer=partial(TaskLeaseRenewer, chosen.claims, lambda: self.store),
                observer=observer or NullObserver(),
                models=Catalogue({}, gateway),
                owner=self.ids.make("proc_"),
                open_plan_sandbox=open_plan_sandbox,
            )
        )
        async with asyncio.TaskGroup() as calls:
            with _begun_calls(chosen_routes, calls) if self.begins else nullcontext():
                async with asyncio.TaskGroup() as group:
                    group.create_task(processor.run(), name="processor")
                    try:
                        yield processor
                    finally:
                        processor.stop()


@contextmanager
def _begun_calls(routes: Routes, tasks: asyncio.TaskGroup) -> Iterator[None]:
    """Let the endpoints of a processor begin calls in these tasks."""
    endpoints = {id(endpoint): endpoint for endpoint in routes.by_model.values()}
    if routes.default is not None:
        endpoints[id(routes.default)] = routes.default
    doors = {key: endpoint.upstream for key, endpoint in endpoints.items()}
    for endpoint in endpoints.values():
        begun = Begun(endpoint.upstream, random.Random(endpoint.name), unanswered=0.0)
        begun.tasks = tasks
        endpoint.upstream = begun
    try:
        yield
    finally:
        for key, endpoint in endpoints.items():
            endpoint.upstream = doors[key]


def _routes(answers: Mapping[str, Answer] | Answer) -> Routes:
    if not isinstance(answers, Mapping):
        return Routes(default=Endpoint("upstream", MemoryUpstream(answers)))
    return Routes(
        by_model={name: Endpoint(name, MemoryUpstream(answer)) for name, answer in answers.items()}
    )
