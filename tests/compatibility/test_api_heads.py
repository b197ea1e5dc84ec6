"""Every reply has an id, every error an envelope, and a hostile request head is refused early.

Requests that no client library would send go over a bare socket.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence

import httpx
import pytest
from starlette.types import Message

from testkit.servers.api import ApiWorld, served
from tidegate.api.app import build_app
from tidegate.api.errors import render
from tidegate.api.settings import Limits, Settings
from tidegate.domain.batch import Batch
from tidegate.domain.errors import ClaimLost, SettingsInvalid, StorageBroken, TidegateError

CREATE = {"input_file_id": "file-x", "endpoint": "/v1/embeddings", "completion_window": "24h"}
UPLOAD: dict[str, tuple[str | None, str | bytes]] = {
    "purpose": (None, "evals"),
    "file": ("a", b"b"),
}
ENVELOPE = {"message", "type", "param", "code"}


@pytest.fixture
async def world() -> AsyncIterator[ApiWorld]:
    async with served(ApiWorld()) as running:
        yield running


@pytest.fixture
async def client(world: ApiWorld) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=world.url, timeout=30, trust_env=False) as made:
        yield made


async def exchange(world: ApiWorld, request: bytes) -> tuple[int, Mapping[str, str], bytes]:
    """Send bytes over a socket of their own; return the status, headers and body of the reply."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def get(*headers: bytes) -> bytes:
    fixed = (b"connection: close", *headers)
    return b"GET /v1/files HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in fixed) + b"\r\n"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/files", 200),
        ("HEAD", "/v1/batches", 200),
        ("GET", "/v1/files/file-x", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("PUT", "/v1/files", 405),
        ("POST", "/v1/batches", 400),
        ("GET", "/v1/batches?limit=x", 400),
    ],
)
async def test_every_reply_has_an_id(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    reply = await client.request(method, path)
    assert reply.status_code == status
    assert reply.headers["x-request-id"].startswith("req_")
    again = await client.request(method, path, headers={"x-request-id": "Mine_1.a-b"})
    assert again.headers["x-request-id"] == "Mine_1.a-b"
    if status >= 400:
        assert set(reply.json()["error"]) == ENVELOPE


@pytest.mark.parametrize(("given", "kept"), [("a" * 64, True), ("a" * 65, False), ("a b", False)])
async def test_an_id_from_outside_is_short_and_plain(
    client: httpx.AsyncClient, given: str, *, kept: bool
) -> None:
    reply = await client.get("/v1/files", headers={"x-request-id": given})
    assert (reply.headers["x-request-id"] == given) is kept


async def test_unknown_paths_are_reported_as_openai_does(client: httpx.AsyncClient) -> None:
    reply = await client.get("/v1/foo")
    assert reply.json() == {
        "error": {
            "message": "Invalid URL (GET /v1/foo)",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    }
    for path in ("/v1", "/v1/v1/files", "/v1/files/a/b", "/v1/batches/a/b", "/v2/files"):
        assert (await client.get(path)).status_code == 404, path


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", "/v1/files", "GET, HEAD, POST"),
        ("POST", "/v1/files/x", "DELETE, GET, HEAD"),
        ("DELETE", "/v1/batches/x", "GET, HEAD"),
        ("GET", "/v1/batches/x/cancel", "POST"),
        ("OPTIONS", "/v1/models", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_answered_with_the_allowed_ones(
    client: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    reply = await client.request(method, path)
    assert reply.status_code == 405
    assert reply.headers["allow"] == allow
    assert f"Not allowed to {method} on {path}" in reply.json()["error"]["message"]


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 431)])
async def test_the_number_of_headers_is_bounded(world: ApiWorld, count: int, status: int) -> None:
    extra = [b"x-%d: y" % number for number in range(count - 2)]
    answer, headers, body = await exchange(world, get(b"host: localhost", *extra))
    assert answer == status
    assert headers["x-request-id"]
    assert (set(json.loads(body).get("error", {})) == ENVELOPE) is (status == 431)


@pytest.mark.parametrize(("size", "status"), [(32_768, 200), (32_769, 431)])
async def test_the_size_of_headers_is_bounded(world: ApiWorld, size: int, status: int) -> None:
    fixed = len("host" + "localhost" + "connection" + "close" + "x-pad")
    pad = b"x-pad: " + b"p" * (size - fixed)
    assert (await exchange(world, get(b"host: localhost", pad)))[0] == status


@pytest.mark.parametrize("name", ["Host", "Authorization", "Idempotency-Key", "Content-Type"])
async def test_of_some_headers_a_second_one_is_refused(world: ApiWorld, name: str) -> None:
    rows = [b"host: localhost"] if name != "Host" else []
    rows += [f"{spelling}: localhost".encode() for spelling in (name, name.upper())]
    status, _, body = await exchange(world, get(*rows))
    assert status == 400
    assert f"two {name} headers" in json.loads(body)["error"]["message"]
    assert (await exchange(world, get(*rows[:-1])))[0] == 200


@pytest.mark.parametrize(
    ("encoding", "status"), [("gzip", 415), ("br", 415), ("identity", 200), ("Identity", 200)]
)
@pytest.mark.parametrize("path", ["/v1/batches", "/v1/files"])
async def test_compressed_bodies_are_refused(
    client: httpx.AsyncClient, encoding: str, status: int, path: str
) -> None:
    headers = {"content-encoding": encoding}
    if path == "/v1/files":
        reply = await client.post(path, files=UPLOAD, headers=headers)
    else:
        reply = await client.post(path, json=CREATE, headers=headers)
    assert reply.status_code == status, reply.text


@pytest.mark.parametrize(("size", "status"), [(2**20, 200), (2**20 + 1, 413)])
async def test_a_body_of_unknown_length_is_bounded(
    client: httpx.AsyncClient, size: int, status: int
) -> None:
    body = json.dumps(CREATE).encode().ljust(size)

    async def chunked() -> AsyncIterator[bytes]:
        for start in range(0, size, 50_000):
            yield body[start : start + 50_000]

    reply = await client.post("/v1/batches", content=chunked())
    assert reply.status_code == status, reply.text


async def test_an_unforeseen_error_is_an_answer_and_is_logged_once(
    client: httpx.AsyncClient, world: ApiWorld
) -> None:
    async def broken(batch: Batch) -> Batch:
        raise RuntimeError(f"the secret of {batch.id}")

    world.store.create_batch = broken  # type: ignore[method-assign]  # a bug, put there
    reply = await client.post("/v1/batches", json=CREATE)
    assert reply.status_code == 500
    error = reply.json()["error"]
    assert set(error) == ENVELOPE
    assert error["type"] == "server_error"
    assert "secret" not in reply.text
    ((event, fields),) = world.log.events
    assert event == "request_crashed"
    assert fields["request_id"] == reply.headers["x-request-id"]
    assert (fields["method"], fields["path"]) == ("POST", "/v1/batches")
    assert isinstance(fields["exc_info"], RuntimeError)


async def test_lost_durability_is_reported(world: ApiWorld) -> None:
    told: list[StorageBroken] = []

    async def broken(batch: Batch) -> Batch:
        raise StorageBroken(f"The flush of {batch.id} failed.")

    world.store.create_batch = broken  # type: ignore[method-assign]  # a broken disk, put there
    app = build_app(
        settings=world.settings,
        store=world.store,
        blobs=world.blobs,
        pubsub=world.pubsub,
        models=world.models,
        clock=world.clock,
        ids=world.ids,
        log=world.log,
        on_storage_broken=told.append,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.post("/v1/batches", json=CREATE)).status_code == 500
    assert len(told) == 1
    assert [event for event, _ in world.log.events] == ["storage_broken"]


async def test_an_upload_that_was_fenced_may_be_sent_again() -> None:
    rendered = render(ClaimLost("The upload was abandoned; upload again."))
    assert rendered.status == 409
    assert rendered.headers["x-should-retry"] == "true"
    assert render(TidegateError("Something else.")).status == 500


async def test_tenants_never_see_each_other() -> None:
    keys = {hashlib.sha256(name.encode()).hexdigest(): name for name in ("anna", "bert")}
    async with served(ApiWorld(settings=Settings(keys=keys))) as world:

        def client_of(key: str) -> httpx.AsyncClient:
            return httpx.AsyncClient(
                base_url=world.url,
                headers={"authorization": f"bearer  {key}"},
                timeout=30,
                trust_env=False,
            )

        async with client_of("anna") as anna, client_of("bert") as bert:
            file_id = (await anna.post("/v1/files", files=UPLOAD)).json()["id"]
            batch_id = (await anna.post("/v1/batches", json=CREATE)).json()["id"]
            paths = [
                ("GET", f"/v1/files/{file_id}"),
                ("GET", f"/v1/files/{file_id}/content"),
                ("DELETE", f"/v1/files/{file_id}"),
                ("GET", f"/v1/files?after={file_id}"),
                ("GET", f"/v1/batches/{batch_id}"),
                ("POST", f"/v1/batches/{batch_id}/cancel"),
                ("GET", f"/v1/batches?after={batch_id}"),
            ]
            for method, path in paths:
                assert (await bert.request(method, path)).status_code == 404, path
            for path in ("/v1/files", "/v1/batches"):
                assert (await bert.get(path)).json()["data"] == []
                assert len((await anna.get(path)).json()["data"]) == 1


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic anna", "anna", "Bearer x"])
async def test_without_a_key_nothing_is_revealed(header: str | None) -> None:
    keys = {hashlib.sha256(b"anna").hexdigest(): "anna"}
    async with served(ApiWorld(settings=Settings(keys=keys))) as world:
        headers = {} if header is None else {"authorization": header}
        async with httpx.AsyncClient(base_url=world.url, trust_env=False) as client:
            # Not even whether a path exists.
            for path in ("/v1/files", "/v1/nothing"):
                reply = await client.get(path, headers=headers)
                assert reply.status_code == 401
                assert reply.headers["www-authenticate"] == "Bearer"
                assert reply.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"x": "anna"}, "64 lower-case"), ({"a" * 64: "an na"}, "an na"), ({"a" * 64: ""}, "tenant")],
)
def test_wrong_keys_are_reported(keys: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message):
        Settings(keys=keys)
    assert "a" * 64 not in repr(Settings(keys={"a" * 64: "anna"}))


@pytest.mark.parametrize("name", sorted(Limits.__dataclass_fields__))
def test_limits_are_above_zero(name: str) -> None:
    with pytest.raises(SettingsInvalid, match=name):
        Limits(**{name: 0})


async def test_models_may_have_slashes(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["tide-1", "org/tide-2"]
    for path in ("/v1/models/org/tide-2", "/v1/models/org%2Ftide-2/", "/models/org/tide-2"):
        assert (await client.get(path)).json() == listed["data"][1]
    assert (await client.get("/v1/models/org")).json()["error"]["code"] == "model_not_found"


async def test_a_server_may_ask_to_start_and_stop(world: ApiWorld) -> None:
    app = build_app(
        settings=world.settings,
        store=world.store,
        blobs=world.blobs,
        pubsub=world.pubsub,
        models=world.models,
        clock=world.clock,
        ids=world.ids,
        log=world.log,
    )

    async def converse(kind: str, heard: Sequence[str]) -> list[str]:
        waiting = [{"type": name} for name in heard]
        said: list[str] = []

        async def receive() -> Message:
            return waiting.pop(0)

        async def send(message: Message) -> None:
            said.append(message["type"])

        await app({"type": kind}, receive, send)
        return said

    assert await converse("lifespan", ["lifespan.startup", "lifespan.shutdown"]) == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert await converse("websocket", ["websocket.connect"]) == ["websocket.close"]
