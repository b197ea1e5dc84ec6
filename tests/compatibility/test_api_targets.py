"""Request targets as clients spell them, well and badly."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from testkit.servers.api import ApiWorld, served
from testkit.users.sdk import SdkUser
from tidegate.testing.deployment import request_line

CREATE = {"input_file_id": "file-x", "endpoint": "/v1/embeddings", "completion_window": "24h"}


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


async def test_prefix_and_slash_may_be_there_or_not(world: ApiWorld) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        for prefix, slash in itertools.product(("/v1", "", "//v1"), ("", "/")):
            root = f"{world.url}{prefix}/batches"
            created = await client.post(f"{root}{slash}", json=CREATE)
            assert created.status_code == 200, (root, slash)
            batch = created.json()
            assert (await client.get(f"{root}/{batch['id']}{slash}")).json() == batch
            listed = (await client.get(f"{root}{slash}")).json()
            assert batch in listed["data"]
            cancelled = await client.post(f"{root}/{batch['id']}/cancel{slash}")
            assert cancelled.json()["status"] == "cancelling"


async def test_the_sdk_may_be_given_the_bare_address(world: ApiWorld) -> None:
    async with openai.AsyncOpenAI(base_url=world.url, api_key="unused") as client:
        user = SdkUser(client, world)
        batch = await user.submit([request_line("a")])
        assert await client.batches.retrieve(batch.id) == batch


async def test_an_id_that_can_be_none_is_not_found(
    client: httpx.AsyncClient, world: ApiWorld
) -> None:
    paths = (
        "/v1/batches/a%2Fb",
        "/v1/batches/%00",
        "/v1/batches/%ff",
        "/v1/batches/..%2f..%2fetc",
        "/v1/files/" + "x" * 129,
        "/v1/files/%F0%9F%8C%8A/content",
    )
    for path in paths:
        reply = await client.get(path)
        assert reply.status_code == 404, (path, reply.text)
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert world.log.events == []


async def test_what_is_no_request_is_answered_and_others_are_served_on(
    client: httpx.AsyncClient, world: ApiWorld
) -> None:
    first_lines = (
        b"GET /v1/files/\xff HTTP/1.1",
        b"GET /v1/files\x00 HTTP/1.1",
        b"GET HTTP/1.1",
        b"\xff\xfe\xfd",
        b"GET /v1/files HTTP/9.9",
        b"G@T /v1/files HTTP/1.1",
    )
    for first_line in first_lines:
        answered = await status_line(world, first_line + b"\r\nhost: localhost\r\n\r\n")
        assert answered.startswith(b"HTTP/1.1 4"), (first_line, answered)
        assert (await client.get("/v1/files")).status_code == 200, first_line
    assert world.log.events == []


async def test_a_body_of_two_lengths_is_refused(world: ApiWorld) -> None:
    """The end of a body must be clear, or a request could hide in another one."""
    heads = (
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 5\r\ncontent-length: 6\r\n",
        b"content-length: -1\r\n",
        b"content-length: 5, 5\r\n",
        b"transfer-encoding: chunked, identity\r\n",
    )
    for headers in heads:
        head = b"POST /v1/batches HTTP/1.1\r\nhost: localhost\r\n" + headers + b"\r\n"
        answered = await status_line(world, head + b"0\r\n\r\nGET /v1/files HTTP/1.1\r\n\r\n")
        assert answered.startswith(b"HTTP/1.1 400 "), (headers, answered)
    assert world.asked.count("GET /v1/files") == 0


async def test_a_chunked_body_is_read(world: ApiWorld, client: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for letter in b'{"input_file_id":"f","endpoint":"/v1/embeddings","completion_window":"1h"}':
            yield bytes([letter])

    reply = await client.post("/v1/batches", content=pieces())
    assert reply.status_code == 200, reply.text
    assert reply.json()["completion_window"] == "1h"
