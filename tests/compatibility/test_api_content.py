"""Downloads: ranges, entity tags, HEAD, files that grow, and clients that go away."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from testkit.servers.api import ApiWorld, served
from tidegate.api.content import Slice, allows_range, disposition, matches, permits, read_range
from tidegate.application.content import CHUNK_BYTES_MAX
from tidegate.domain.file import File, Part, Purpose
from tidegate.testing.contract.stores import (
    START,
    a_batch,
    a_commit,
    claim_shard,
    planned,
    result,
    upload,
)

DATA = bytes(range(100))


@pytest.fixture
async def world() -> AsyncIterator[ApiWorld]:
    async with served(ApiWorld()) as running:
        await put(running, "file-1", DATA)
        await put(running, "file-0", b"")
        yield running


@pytest.fixture
async def client(world: ApiWorld) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=world.url, timeout=30, trust_env=False) as made:
        yield made


async def put(world: ApiWorld, file_id: str, data: bytes) -> None:
    """Store a file in up to two parts."""
    parts = []
    for number, piece in enumerate((data[:60], data[60:])):
        if piece:
            await world.blobs.put(f"uploads/{file_id}-{number}", b"__" + piece + b"__")
            blob = f"uploads/{file_id}-{number}"
            parts.append(Part(blob=blob, offset=2, length=len(piece)))
    file = File(
        id=file_id,
        tenant="default",
        filename="a.jsonl",
        purpose=Purpose.EVALS,
        bytes=len(data),
        created_at=START,
    )
    await world.store.begin_upload(file_id, tenant="default", blob="x", at=START)
    await world.store.finish_upload(file_id, file, parts)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-9", Slice(start=0, length=10)),
        ("bytes=90-", Slice(start=90, length=10)),
        ("bytes=90-500", Slice(start=90, length=10)),
        ("bytes=-5", Slice(start=95, length=5)),
        ("bytes=-500", Slice(start=0, length=100)),
        ("Bytes = 99-99", Slice(start=99, length=1)),
        ("bytes=100-", Slice(start=100, length=0)),
        ("bytes=-0", Slice(start=100, length=0)),
        ("bytes=999999999999999999999-", Slice(start=100, length=0)),
        ("bytes=9-0", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=a-b", None),
        ("bytes=" + "9" * 31 + "-", Slice(start=100, length=0)),
        ("", None),
    ],
)
def test_a_range_header(header: str | None, expected: Slice | None) -> None:
    assert read_range(header, 100) == expected


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, False),
        ('"t"', True),
        ('W/"t"', True),
        ('"a", "t"', True),
        ("*", True),
        ('"other"', False),
        ("t", False),
    ],
)
def test_if_none_match(header: str | None, *, found: bool) -> None:
    assert matches(header, '"t"') is found


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (None, True),
        ('"t"', True),
        ('"a", "t"', True),
        (" * ", True),
        ('W/"t"', False),
        ('"other"', False),
        ("t", False),
        ("", False),
    ],
)
def test_if_match(header: str | None, *, allowed: bool) -> None:
    assert permits(header, '"t"') is allowed


@pytest.mark.parametrize(
    ("header", "allowed"),
    [(None, True), ('"t"', True), ('W/"t"', False), ("Sat, 21 Nov 2026 00:00:00 GMT", False)],
)
def test_if_range(header: str | None, *, allowed: bool) -> None:
    assert allows_range(header, '"t"') is allowed


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("a.jsonl", "attachment; filename=\"a.jsonl\"; filename*=UTF-8''a.jsonl"),
        ('a"b\\c', "attachment; filename=\"a_b_c\"; filename*=UTF-8''a%22b%5Cc"),
        ("é\n;/", "attachment; filename=\"__;/\"; filename*=UTF-8''%C3%A9%0A%3B%2F"),
    ],
)
def test_a_filename_stays_in_its_quotes(filename: str, header: str) -> None:
    assert disposition(filename) == header


async def test_the_whole_content(client: httpx.AsyncClient) -> None:
    reply = await client.get("/v1/files/file-1/content")
    assert (reply.status_code, reply.content) == (200, DATA)
    expected = {
        "content-length": "100",
        "content-type": "application/octet-stream",
        "etag": '"file-1-100"',
        "accept-ranges": "bytes",
        "content-disposition": "attachment; filename=\"a.jsonl\"; filename*=UTF-8''a.jsonl",
        "x-content-type-options": "nosniff",
    }
    assert {name: reply.headers[name] for name in expected} == expected


async def test_a_range_of_the_content(client: httpx.AsyncClient) -> None:
    ranges = [("0-0", 0, 0), ("55-64", 55, 64), ("60-", 60, 99), ("-1", 99, 99), ("0-1000", 0, 99)]
    for asked, start, end in ranges:
        reply = await client.get("/v1/files/file-1/content", headers={"range": f"bytes={asked}"})
        assert reply.status_code == 206, asked
        assert reply.content == DATA[start : end + 1], asked
        assert reply.headers["content-range"] == f"bytes {start}-{end}/100"
        assert reply.headers["content-length"] == str(end - start + 1)


async def test_a_range_past_the_end(client: httpx.AsyncClient) -> None:
    for file_id, size in (("file-1", 100), ("file-0", 0)):
        url = f"/v1/files/{file_id}/content"
        reply = await client.get(url, headers={"range": "bytes=100-"})
        assert reply.status_code == 416, file_id
        assert reply.headers["content-range"] == f"bytes */{size}"
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


async def test_an_empty_file(client: httpx.AsyncClient) -> None:
    reply = await client.get("/v1/files/file-0/content")
    assert (reply.status_code, reply.content, reply.headers["content-length"]) == (200, b"", "0")


async def test_head_returns_the_same_headers_without_the_bytes(client: httpx.AsyncClient) -> None:
    url = "/v1/files/file-1/content"
    head = await client.head(url, headers={"range": "bytes=0-1"})
    whole = await client.get(url)
    assert (head.status_code, head.content) == (200, b"")
    ignored = {"date", "x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in ignored} == {
        k: v for k, v in whole.headers.items() if k not in ignored
    }


async def test_what_the_client_has_is_not_sent_again(client: httpx.AsyncClient) -> None:
    url = "/v1/files/file-1/content"
    reply = await client.get(url, headers={"if-none-match": '"file-1-100"'})
    assert (reply.status_code, reply.content) == (304, b"")
    assert reply.headers["etag"] == '"file-1-100"'
    fresh = await client.get(url, headers={"if-none-match": '"file-1-99"'})
    assert fresh.status_code == 200


async def test_a_changed_file_fails_a_conditional_request(client: httpx.AsyncClient) -> None:
    url = "/v1/files/file-1/content"
    tag = (await client.get(url)).headers["etag"]
    assert (await client.get(url, headers={"if-match": tag})).status_code == 200
    reply = await client.get(url, headers={"if-match": '"file-1-0"', "range": "bytes=0-1"})
    assert reply.status_code == 412
    assert tag in reply.json()["error"]["message"]


async def test_a_range_of_another_state_gives_the_whole(client: httpx.AsyncClient) -> None:
    url = "/v1/files/file-1/content"
    asked = {"range": "bytes=0-1", "if-range": '"file-1-99"'}
    assert (await client.get(url, headers=asked)).status_code == 200
    asked["if-range"] = '"file-1-100"'
    assert (await client.get(url, headers=asked)).status_code == 206


async def test_a_growing_file_is_served_as_it_was(
    client: httpx.AsyncClient, world: ApiWorld
) -> None:
    await upload(world.store, tenant="default")
    await planned(world.store, a_batch(tenant="default"))
    await world.blobs.put("results/1", b"0123456789")
    claimed = await claim_shard(world.store)
    first = Part(blob="results/1", offset=0, length=4)
    await world.store.commit(a_commit(result(claimed, [0], output=first), segment="one"))

    batch = (await client.get("/v1/batches/batch_1")).json()
    assert batch["status"] == "in_progress"
    assert batch["error_file_id"] is None
    url = f"/v1/files/{batch['output_file_id']}/content"
    before = await client.get(url)
    assert before.content == b"0123"

    second = Part(blob="results/1", offset=4, length=6)
    await world.store.commit(
        a_commit(result(claimed, [1], output=second, sequence=1), segment="two")
    )
    tag = before.headers["etag"]
    after = await client.get(url, headers={"if-none-match": tag, "range": "bytes=4-"})
    assert (after.status_code, after.content) == (206, b"456789")
    assert after.headers["etag"] != tag


async def test_bytes_that_are_gone_are_an_error_and_are_logged_once(
    client: httpx.AsyncClient, world: ApiWorld
) -> None:
    await world.blobs.delete("uploads/file-1-0")
    reply = await client.get("/v1/files/file-1/content")
    assert reply.status_code == 500
    assert reply.json()["error"]["type"] == "server_error"
    assert "uploads/" not in reply.text
    assert [event for event, _ in world.log.events] == ["request_crashed"]
    assert world.log.events[0][1]["request_id"] == reply.headers["x-request-id"]


async def big(world: ApiWorld, size: int) -> str:
    """Store a file of one part."""
    await world.blobs.put("uploads/big", bytes(size))
    file = File(
        id="file-big",
        tenant="default",
        filename="big",
        purpose=Purpose.EVALS,
        bytes=size,
        created_at=START,
    )
    await world.store.begin_upload("big", tenant="default", blob="uploads/big", at=START)
    whole = Part(blob="uploads/big", offset=0, length=size)
    await world.store.finish_upload("big", file, [whole])
    return file.id


async def test_bytes_that_are_gone_midway_break_the_connection(
    client: httpx.AsyncClient, world: ApiWorld
) -> None:
    file_id = await big(world, 2 * CHUNK_BYTES_MAX)
    read = world.blobs.read

    async def gone_later(name: str, offset: int, length: int) -> bytes:
        data = await read(name, offset, length)
        await world.blobs.delete(name)
        return data

    world.blobs.read = gone_later  # type: ignore[method-assign]  # a spy on the real one
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get(f"/v1/files/{file_id}/content")
    assert [event for event, _ in world.log.events] == ["request_crashed"]


async def test_nothing_more_is_read_for_a_client_that_has_gone(world: ApiWorld) -> None:
    size = 64 * CHUNK_BYTES_MAX
    await big(world, size)
    read, reads, idle = world.blobs.read, 0, asyncio.Event()
    gone = asyncio.Event()

    async def seen(name: str, offset: int, length: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 4:
            idle.set()
            await gone.wait()
        return await read(name, offset, length)

    world.blobs.read = seen  # type: ignore[method-assign]  # a spy on the real one
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"GET /v1/files/file-big/content HTTP/1.1\r\nhost: localhost\r\n\r\n")
    async with asyncio.timeout(20):
        drained = 0
        while not idle.is_set():
            drained += len(await reader.read(2**20))
        writer.transport.abort()
        async with httpx.AsyncClient(base_url=world.url, trust_env=False) as client:
            await client.get("/v1/files")  # By now the server has noticed the abort.
            gone.set()
            await client.get("/v1/files")
    assert drained < size
    assert reads <= 5
    assert world.log.events == []
