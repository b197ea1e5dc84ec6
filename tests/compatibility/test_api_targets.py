"""Request targets as clients spell them, well and badly."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from tidegate.testing.deployment import request_line
from tidegate.testing.sdk_user import SdkUser
from tidegate.testing.served_api import ApiWorld, served

CREATE = {
    "input_file_id": "file-x",
    "endpoint": "/v1/embeddings",
    "completion_window": "24h",
}


@pytest.fixture
async def world() -> AsyncIterator[ApiWorld]:
    async with served(ApiWorld()) as running:
        yield running


@pytest.fixture
async def client(world: ApiWorld) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=world.url, timeout=30) as made:
        yield made


async def status_line(world: ApiWorld, request: bytes) -> bytes:
    """Return the first line that the server answers to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(request)
    async with asyncio.timeout(20):
        line = await reader.readline()
    writer.transport.abort()
    return line


@pytest.mark.parametrize("prefix", ["/v1", "", "//v1"])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_prefix_and_slash_may_be_there_or_not(
    client: httpx.AsyncClient, prefix: str, slash: str
) -> None:
    root = str(client.base_url).rstrip("/")
    created = await client.post(f"{root}{prefix}/batches{slash}", json=CREATE)
    assert created.status_code == 200, created.text
    batch = created.json()
    one = f"{prefix}/batches/{batch['id']}"
    assert (await client.get(f"{root}{one}{slash}")).json() == batch
    listed = (await client.get(f"{root}{prefix}/batches{slash}")).json()
    assert listed["data"] == [batch]
    cancelled = await client.post(f"{root}{one}/cancel{slash}")
    assert cancelled.json()["status"] == "cancelling"


async def test_the_sdk_may_be_given_the_bare_address(world: ApiWorld) -> None:
    async with openai.AsyncOpenAI(base_url=world.url, api_key="unused") as client:
        user = SdkUser(client, world)
        batch = await user.submit([request_line("a")])
        assert await client.batches.retrieve(batch.id) == batch


@pytest.mark.parametrize(
    "path",
    [
        "/v1/batches/a%2Fb",
        "/v1/batches/%00",
        "/v1/batches/%ff",
        "/v1/batches/..%2f..%2fetc",
        "/v1/files/" + "x" * 129,
        "/v1/files/%F0%9F%8C%8A/content",
    ],
)
async def test_an_id_that_can_be_none_is_not_found(
    client: httpx.AsyncClient, world: ApiWorld, path: str
) -> None:
    reply = await client.get(path)
    assert reply.status_code == 404, reply.text
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert world.log.events == []


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /v1/files/\xff HTTP/1.1",
        b"GET /v1/files\x00 HTTP/1.1",
        b"GET HTTP/1.1",
        b"\xff\xfe\xfd",
        b"GET /v1/files HTTP/9.9",
        b"G@T /v1/files HTTP/1.1",
    ],
)
async def test_what_is_no_request_is_answered_and_others_are_served_on(
    client: httpx.AsyncClient, world: ApiWorld, request_line: bytes
) -> None:
    answered = await status_line(world, request_line + b"\r\nhost: x\r\n\r\n")
    assert answered.startswith(b"HTTP/1.1 4"), answered
    assert (await client.get("/v1/files")).status_code == 200
    assert world.log.events == []


@pytest.mark.parametrize(
    "headers",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"content-length: -1\r\n",
        b"content-length: 5, 5\r\n",
        b"transfer-encoding: chunked, identity\r\n",
    ],
)
async def test_a_body_of_two_lengths_is_refused(world: ApiWorld, headers: bytes) -> None:
    """Where a body ends must be clear, or a request could hide in another one."""
    head = b"POST /v1/batches HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n"
    answered = await status_line(world, head + b"0\r\n\r\nGET /v1/files HTTP/1.1\r\n\r\n")
    assert answered.startswith(b"HTTP/1.1 400 "), answered
    assert world.asked.count("GET /v1/files") == 0


async def test_a_chunked_body_is_read(world: ApiWorld, client: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for letter in b'{"input_file_id":"f","endpoint":"/v1/embeddings","completion_window":"1h"}':
            yield bytes([letter])

    reply = await client.post("/v1/batches", content=pieces())
    assert reply.status_code == 200, reply.text
    assert reply.json()["completion_window"] == "1h"
