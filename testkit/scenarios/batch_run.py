"""A batch from create to its end through all that it really meets, but for sockets and disks.

A processor with its planner, dispatcher and committers works on a ledger and blobs in memory and
calls a server without sockets through the HTTP client. Time is virtual, so each run goes the
same way: what it costs is CPU time alone, and what it causes can be counted.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from time import process_time_ns

from typing_extensions import override

from testkit.servers.canned import CannedServer
from tidegate.access.principal import Principal
from tidegate.api.multipart import events
from tidegate.api.settings import Limits
from tidegate.application.context import Application
from tidegate.application.files import upload
from tidegate.application.settings import Settings as DeskSettings
from tidegate.blobs.base import BlobStore
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.batch import Batch, Status
from tidegate.endpoints.catalogue import Catalogue
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.processor.observer import Observer
from tidegate.processor.settings import InFlightLimits, Settings
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.runtime.clock import Clock
from tidegate.stores.base import Store
from tidegate.stores.memory import MemoryStore
from tidegate.testing.deployment import TENANT, Deployment, request_line
from tidegate.testing.ids import SeededIds
from tidegate.testing.loop import LoopClock
from tidegate.upstreams.base import Upstream
from tidegate.upstreams.http1.upstream import HttpUpstream
from tidegate.upstreams.settings import HttpSettings, Limits as UpstreamLimits

IN_FLIGHT = 256
LATENCY_SECONDS = 0.002
SECONDS_MAX = 600.0
PROMPT_BYTES = 1_900
PIECE_BYTES = 32 * 1024
_TEXT = "All work and no play makes one dull answer. " * 15
_BODY = (
    '{"id":"chatcmpl-5f0c3b7a9d1e4c62","object":"chat.completion","created":1790000000,'
    '"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"' + _TEXT + '",'
    '"refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":412,'
    '"completion_tokens":143,"total_tokens":555,"prompt_tokens_details":{"cached_tokens":384}}}'
).encode()
REPLY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver: canned\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class Stopwatch(Observer):
    """Records the process's CPU time at the end of each stage."""

    planned_ns = 0
    ended_ns = 0

    @override
    def on_planned(self, batch: Batch, seconds: float) -> None:
        self.planned_ns = process_time_ns()

    @override
    def on_batch_ended(self, batch: Batch) -> None:
        self.ended_ns = process_time_ns()


_BOUNDARY = b"0123456789abcdef"
_FORM_START = (
    b'--%s\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--%s\r\ncontent-disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    % (_BOUNDARY, _BOUNDARY)
)
_FORM_END = b"\r\n--%s--\r\n" % _BOUNDARY


@dataclass(slots=True, kw_only=True)
class BatchSetup:
    """The parts that a batch runs on; each default is the simplest there is.

    `wrap_upstream` wraps the HTTP client, and `make_blobs` replaces the blobs in memory.
    """

    make_store: Callable[[Clock], Store] = MemoryStore
    make_blobs: Callable[[], BlobStore] = lambda: MemoryBlobs(appends=True)
    wrap_upstream: Callable[[Upstream], Upstream] = lambda upstream: upstream
    watch: Stopwatch = field(default_factory=Stopwatch)
    in_flight: int = IN_FLIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCost:
    """What a batch cost, in nanoseconds of CPU time, and how many requests the server saw."""

    lines: int
    planning_ns: int
    dispatch_ns: int
    requests: int

    @property
    def costs_ns(self) -> dict[str, float]:
        """Return what each stage cost for one line."""
        return {
            "planning": self.planning_ns / self.lines,
            "dispatch": self.dispatch_ns / self.lines,
        }


def lines_of(count: int) -> list[bytes]:
    """Return request lines of about 2 KB, each with a prompt of its own."""
    filler = "x" * PROMPT_BYTES
    return [
        request_line(f"line-{number}", content=f"{number:08d} {filler}") for number in range(count)
    ]


async def upload_cpu_ns(data: bytes, blobs: BlobStore) -> int:
    """Upload a batch file as its form comes in; return nanoseconds of CPU time."""
    deployment = Deployment.make()
    app = Application(
        settings=DeskSettings(),
        store=deployment.store,
        blobs=blobs,
        pubsub=deployment.pubsub,
        models=Catalogue({}, None),
        clock=deployment.clock,
        ids=deployment.ids,
    )
    form = _FORM_START + data + _FORM_END
    cut = [form[start : start + PIECE_BYTES] for start in range(0, len(form), PIECE_BYTES)]

    async def pieces() -> AsyncIterator[bytes]:
        for piece in cut:
            yield piece

    begun_ns = process_time_ns()
    file = await upload(
        app, Principal(tenant=TENANT), events(pieces(), boundary=_BOUNDARY, limits=Limits())
    )
    spent_ns = process_time_ns() - begun_ns
    assert file.bytes == len(data), file
    return spent_ns


async def run_batch(lines: list[bytes], setup: BatchSetup) -> BatchCost:
    """Take a batch of these lines to its end; run it on a virtual loop."""
    clock = LoopClock(asyncio.get_running_loop())
    settings = HttpSettings(
        url="http://127.0.0.1:1",
        limits=UpstreamLimits(
            connections_max=setup.in_flight, idle_connections_max=setup.in_flight
        ),
    )
    upstream = HttpUpstream(settings)
    server = CannedServer(REPLY, latency_seconds=LATENCY_SECONDS)
    server.plug(upstream.pool, settings, setup.in_flight)
    limits = AimdSettings(start=setup.in_flight, min=setup.in_flight, max=setup.in_flight)
    endpoint = Endpoint("upstream", setup.wrap_upstream(upstream), limits=limits)
    watch = setup.watch
    async with setup.make_store(clock) as store:
        deployment = Deployment(
            store=store,
            blobs=setup.make_blobs(),
            pubsub=MemoryPubSub(),
            clock=clock,
            ids=SeededIds(random.Random(0)),
        )
        file_id = await deployment.upload(b"".join(lines))
        processing = Settings(limits=InFlightLimits(in_flight_max=setup.in_flight))
        async with deployment.processor(Routes(default=endpoint), processing, observer=watch):
            begun_ns = process_time_ns()
            batch = await deployment.create(file_id)
            batch = await deployment.end_of(batch.id, within_seconds=SECONDS_MAX)
        await upstream.aclose()
    assert batch.status is Status.COMPLETED, batch.status
    assert batch.counts.completed == len(lines), batch.counts
    return BatchCost(
        lines=len(lines),
        planning_ns=watch.planned_ns - begun_ns,
        dispatch_ns=watch.ended_ns - watch.planned_ns,
        requests=server.writes,
    )
