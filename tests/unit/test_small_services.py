"""Small parts of the process: reported failures, lag, the list of models, counted routes."""

import asyncio
import json

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import override

from tidegate.api.middleware.metrics import STEPS_MAX, RequestMetrics, route_of
from tidegate.cli.exit_codes import failure_reason
from tidegate.domain.errors import ReplyBroken, StorageBroken
from tidegate.endpoints.catalogue import Catalogue
from tidegate.runtime.loop_lag import LAG_INTERVAL_SECONDS, LoopLagMonitor
from tidegate.runtime.services import FatalErrorService, ShutdownRequest, run_together
from tidegate.telemetry.metrics import Metrics
from tidegate.upstreams.base import Call, Reply, Upstream


class Listing(Upstream):
    """A server that says which models it has, and counts how often it was asked."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.asked = 0
        self._reply = Reply(status=status, headers={}, body=body)

    @override
    async def send(self, call: Call) -> Reply:
        assert (call.method, call.path) == ("GET", "/v1/models")
        self.asked += 1
        return self._reply

    @override
    async def aclose(self) -> None:
        """Nothing is open."""


def listing(*names: str) -> Listing:
    return Listing(
        json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode()
    )


async def test_a_reported_failure_ends_the_process_and_the_first_one_counts() -> None:
    failure = FatalErrorService()
    failure.report(StorageBroken("the disk is gone"))
    failure.report(StorageBroken("later"))
    failure.stop()
    with pytest.raises(ExceptionGroup) as caught:
        await run_together({}, {"failure": failure}, ShutdownRequest())
    assert failure_reason(caught.value) == "the disk is gone"


def test_a_bug_of_ours_is_not_explained_away() -> None:
    known, bug = StorageBroken("gone"), ValueError("oops")
    assert failure_reason(ExceptionGroup("", [known])) == "gone"
    assert failure_reason(ExceptionGroup("", [known, ExceptionGroup("", [bug])])) is None


async def test_failure_and_heartbeat_may_be_stopped_before_they_run_and_twice() -> None:
    for service in (FatalErrorService(), LoopLagMonitor(lambda _lag: None)):
        service.stop()
        service.stop()
        service.abort()
        async with asyncio.timeout(10):
            await service.run()


async def test_the_heartbeat_shows_how_late_the_loop_is() -> None:
    told: list[float] = []
    beats = asyncio.Event()

    def tell(lag: float) -> None:
        told.append(lag)
        beats.set()

    heartbeat = LoopLagMonitor(tell)
    async with asyncio.timeout(20 * LAG_INTERVAL_SECONDS), asyncio.TaskGroup() as group:
        group.create_task(heartbeat.run())
        await beats.wait()
        heartbeat.stop()
    assert told[0] >= 0.0


async def test_named_models_are_listed_without_asking_anybody() -> None:
    server = listing("else")
    assert await Catalogue({"b": server, "a": server}, None).list_models() == ["a", "b"]
    assert server.asked == 0


async def test_the_one_server_is_asked_once_in_a_while() -> None:
    server = listing("z", "a")
    catalogue = Catalogue({}, server)
    answers = await asyncio.gather(*(catalogue.list_models() for _ in range(5)))
    assert answers == [["a", "z"]] * 5
    assert server.asked == 1


@pytest.mark.parametrize(
    "server",
    [
        Listing(b"{}", 500),
        Listing(b"[]"),
        Listing(b'{"data": 1}'),
        Listing(b'{"data":[{"id":"\xff"}]}'),
        Listing(b'{"a":' + b"[" * 100_000),
    ],
    ids=["500", "an array", "no list", "not UTF-8", "deep"],
)
async def test_a_server_that_cannot_say_is_a_fault(server: Listing) -> None:
    with pytest.raises(ReplyBroken):
        await Catalogue({}, server).list_models()


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/files", "/v1/files"),
        ("/files/file-1/content/", "/files/{id}/content"),
        ("/v1/batches/batch_1/cancel", "/v1/batches/{id}/cancel"),
        ("/v1/models/some-org/model", "/v1/models/{id}/{id}"),
        ("/v1/models/a/b/c", "/v1/models/{id}/{id}/{id}"),
        ("/v1/models/a/b/c/d", "other"),
        ("/wp-login.php", "other"),
        ("/", "other"),
    ],
)
def test_routes_are_few(path: str, route: str) -> None:
    assert route_of(path) == route
    assert route.count("/") <= STEPS_MAX


async def test_answers_are_counted_by_what_was_sent() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Message:
        return {"type": "http.request"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    registry = CollectorRegistry()
    scope: Scope = {"type": "http", "method": "GET", "path": "/v1/files/file-1"}
    await RequestMetrics(app, Metrics(registry).http)(scope, receive, send)
    labels = {"method": "GET", "route": "/v1/files/{id}", "status": "404"}
    assert registry.get_sample_value("tidegate_http_requests_total", labels) == 1
    assert len(sent) == 2
