"""Uploads as clients of every kind send them, byte by byte over a real socket."""

import asyncio
import hashlib
import itertools
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest

from testkit.servers.api import ApiWorld, served
from tidegate.api.settings import Limits, Settings
from tidegate.application.settings import Settings as DeskSettings
from tidegate.blobs.filesystem import FilesystemBlobs

BOUNDARY = "tide"
LINE = b'{"custom_id":"a"}\n'
KIND = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def field(name: str, value: str) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()


def file_part(data: bytes = LINE, *, filename: str = "in.jsonl") -> bytes:
    head = f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\n'
    return head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + data


def form(parts: Sequence[bytes]) -> bytes:
    opened = b"".join(f"--{BOUNDARY}\r\n".encode() + part + b"\r\n" for part in parts)
    return opened + f"--{BOUNDARY}--\r\n".encode()


@pytest.fixture
async def world() -> AsyncIterator[ApiWorld]:
    limits = Limits(form_parts_max=8, form_field_bytes_max=1_000, body_idle_seconds=30.0)
    settings = Settings(limits=limits, batch_api=DeskSettings(file_bytes_max=100_000))
    async with served(ApiWorld(settings=settings)) as running:
        yield running


@pytest.fixture
async def client(world: ApiWorld) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=world.url, timeout=30, trust_env=False) as made:
        yield made


async def assert_empty(world: ApiWorld) -> None:
    page = await world.store.list_files(
        "default", after=None, limit=10, ascending=True, purpose=None
    )
    assert page.items == ()
    assert await world.blobs.list_names("") == []


PARTS = {
    "purpose": field("purpose", "batch"),
    "anchor": field("expires_after[anchor]", "created_at"),
    "seconds": field("expires_after[seconds]", "3600"),
    "file": file_part(),
    "unknown": field("who", "cares"),
}


async def test_parts_come_in_any_order(client: httpx.AsyncClient) -> None:
    for names in itertools.permutations(PARTS):
        body = form([PARTS[name] for name in names])
        reply = await client.post("/v1/files", content=body, headers=KIND)
        assert reply.status_code == 200, (names, reply.text)
        shown = reply.json()
        assert shown["object"] == "file"
        assert shown["status"] == "processed"
        assert shown["bytes"] == len(LINE), names
        assert shown["filename"] == "in.jsonl"
        assert shown["expires_at"] - shown["created_at"] == 3_600, names
        content = await client.get(f"/v1/files/{shown['id']}/content")
        assert content.content == LINE, names


async def test_a_body_may_be_cut_anywhere(client: httpx.AsyncClient) -> None:
    # The content is full of what looks like the boundary.
    data = LINE + f"\r\n--{BOUNDARY[:-1]}\r\n--{BOUNDARY[:2]}\r\r\n-".encode() * 3
    body = form([PARTS["purpose"], file_part(data)])

    async def cut(size: int) -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    for size in (1, 2, 3, 10, 61):
        reply = await client.post("/v1/files", content=cut(size), headers=KIND)
        assert reply.status_code == 200, (size, reply.text)
        content = await client.get(f"/v1/files/{reply.json()['id']}/content")
        assert content.content == data, size


REFUSED = [
    ("no purpose", form([PARTS["file"]]), 400, "Missing required parameter: 'purpose'."),
    ("no file", form([PARTS["purpose"]]), 400, "Missing required parameter: 'file'."),
    ("no parts", f"--{BOUNDARY}--\r\n".encode(), 400, "Missing required parameter: 'file'."),
    ("no body", b"", 400, "ends early"),
    ("no multipart", b"hello", 400, "malformed"),
    ("cut off", form([PARTS["purpose"], PARTS["file"]])[:-5], 400, "ends early"),
    ("cut in a header", form([PARTS["purpose"], PARTS["file"]])[:100], 400, "ends early"),
    ("no name", form([b"Content-Type: text/plain\r\n\r\nx"]), 400, "Content-Disposition"),
    ("a bad header", form([b"a b: c\r\n\r\nx"]), 400, "malformed"),
    ("a long header", form([b"x: " + b"y" * 5_000 + b"\r\n\r\nx"]), 400, "malformed"),
    ("many headers", form([b"x: y\r\n" * 9 + b"\r\nx"]), 400, "malformed"),
    ("a long name", form([field("n" * 129, "x")]), 400, "128"),
    ("a long field", form([field("purpose", "b" * 1_001)]), 400, "1000 bytes"),
    ("a long unknown field", form([field("who", "b" * 1_001)]), 400, "1000 bytes"),
    ("nine parts", form([field("who", "x")] * 8 + [PARTS["file"]]), 400, "more than 8 parts"),
    ("ten thousand parts", form([field("who", "x")] * 10_000), 400, "more than 8 parts"),
    (
        "a large file",
        form([PARTS["purpose"], file_part(LINE + b" " * 100_000)]),
        413,
        "larger than 100000 bytes",
    ),
    (
        "not JSONL",
        form([PARTS["purpose"], file_part(b"hello")]),
        400,
        "Invalid file format for Batch API. Must be .jsonl",
    ),
    (
        "not JSONL, found late",
        form([file_part(b"hello"), PARTS["purpose"]]),
        400,
        "Invalid file format for Batch API. Must be .jsonl",
    ),
    ("two files", form([PARTS["purpose"], PARTS["file"], PARTS["file"]]), 400, "two files"),
]


async def test_a_wrong_form_is_refused_and_leaves_nothing(
    client: httpx.AsyncClient, world: ApiWorld
) -> None:
    for name, body, status, message in REFUSED:
        reply = await client.post("/v1/files", content=body, headers=KIND)
        assert reply.status_code == status, (name, reply.text)
        error = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, name
        assert error["type"] == "invalid_request_error", name
        assert message in error["message"], name
        await assert_empty(world)
        # The connection is still good for the next request.
        assert (await client.get("/v1/files")).status_code == 200, name


async def test_what_is_no_form_is_refused(client: httpx.AsyncClient, world: ApiWorld) -> None:
    body = form([PARTS["purpose"], PARTS["file"]])
    kinds = (
        None,
        "application/json",
        "multipart/form-data",
        "multipart/mixed; boundary=tide",
        "multipart/form-data; boundary=" + "b" * 300,
    )
    for kind in kinds:
        headers = {} if kind is None else {"content-type": kind}
        reply = await client.post("/v1/files", content=body, headers=headers)
        assert reply.status_code == 400, (kind, reply.text)
        await assert_empty(world)


async def test_at_the_bounds_a_form_is_taken(client: httpx.AsyncClient) -> None:
    fill = LINE + b" " * (100_000 - len(LINE))
    parts = [field("n" * 128, "x" * 1_000)] * 6 + [PARTS["purpose"], file_part(fill)]
    reply = await client.post("/v1/files", content=form(parts), headers=KIND)
    assert reply.status_code == 200, reply.text
    assert reply.json()["bytes"] == 100_000


async def test_a_body_that_announces_too_much_is_refused_unread(world: ApiWorld) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(
        b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n"
        b"content-type: multipart/form-data; boundary=tide\r\nexpect: 100-continue\r\n\r\n"
    )
    # No "100 Continue" comes first: a client that waits for it sends nothing in vain.
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_the_filename_is_only_a_name(client: httpx.AsyncClient, world: ApiWorld) -> None:
    part = file_part(filename="../../etc/%22x%0D%0A;y.jsonl")
    reply = await client.post("/v1/files", content=form([PARTS["purpose"], part]), headers=KIND)
    shown = reply.json()
    assert shown["filename"] == "%22x%0D%0A;y.jsonl"
    assert [name.split("/")[0] for name in await world.blobs.list_names("")] == ["uploads"]
    content = await client.get(f"/v1/files/{shown['id']}/content")
    assert content.headers["content-disposition"].startswith(
        'attachment; filename="%22x%0D%0A;y.jsonl"; '
    )


async def test_a_client_that_goes_away_leaves_nothing(world: ApiWorld) -> None:
    begun, given_up = asyncio.Event(), asyncio.Event()
    begin, abandon = world.store.begin_upload, world.store.abandon_upload

    async def seen_begin(upload_id: str, *, tenant: str, blob: str, at: float) -> None:
        await begin(upload_id, tenant=tenant, blob=blob, at=at)
        begun.set()

    async def seen_abandon(upload_id: str) -> bool:
        fenced = await abandon(upload_id)
        given_up.set()
        return fenced

    world.store.begin_upload = seen_begin  # type: ignore[method-assign]  # a spy on the real one
    world.store.abandon_upload = seen_abandon  # type: ignore[method-assign]  # as above
    _, writer = await asyncio.open_connection("127.0.0.1", world.port)
    body = form([PARTS["purpose"], file_part(LINE * 1_000)])
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
        f"content-type: {KIND['content-type']}\r\n\r\n"
    )
    writer.write(head.encode() + body[:9_000])
    async with asyncio.timeout(20):
        await begun.wait()
        writer.transport.abort()
        await given_up.wait()
    await assert_empty(world)
    assert world.log.events == []


async def test_a_client_that_stalls_is_given_up() -> None:
    settings = Settings(limits=Limits(body_idle_seconds=0.05))
    async with served(ApiWorld(settings=settings)) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        head = (
            "POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5000\r\n"
            f"content-type: {KIND['content-type']}\r\n\r\n"
        )
        writer.write(head.encode() + form([PARTS["purpose"], PARTS["file"]])[:-10])
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        await assert_empty(world)


async def test_a_large_upload_stays_on_its_way(tmp_path: Path) -> None:
    """60 MB go in and come out, while memory grows by no more than a few pieces."""
    line = b'{"custom_id":"' + b"x" * 1_000 + b'"}\n'
    count = 60_000_000 // len(line)
    blobs = FilesystemBlobs(tmp_path)
    async with served(ApiWorld(blobs=blobs)) as world:
        head, tail = form([PARTS["purpose"], file_part(b"\0")]).split(b"\0")

        async def body() -> AsyncIterator[bytes]:
            yield head
            for _ in range(count // 50):
                yield line * 50
            yield tail

        async with httpx.AsyncClient(base_url=world.url, timeout=60, trust_env=False) as client:
            await client.get("/v1/files")
            tracemalloc.start()
            try:
                reply = await client.post("/v1/files", content=body(), headers=KIND)
                _, uploading = tracemalloc.get_traced_memory()
                assert reply.status_code == 200, reply.text
                digest = hashlib.sha256()
                url = f"/v1/files/{reply.json()['id']}/content"
                async with client.stream("GET", url) as download:
                    async for piece in download.aiter_raw():
                        digest.update(piece)
                _, downloading = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    await blobs.aclose()
    expected = hashlib.sha256()
    for _ in range(count // 50):
        expected.update(line * 50)
    assert digest.hexdigest() == expected.hexdigest()
    assert reply.json()["bytes"] == count // 50 * 50 * len(line)
    assert max(uploading, downloading) < 12_000_000, (uploading, downloading)


async def test_curl_style_bare_paths_and_slashes(client: httpx.AsyncClient) -> None:
    body = form([PARTS["purpose"], PARTS["file"]])
    for path in ("/v1/files", "/v1/files/", "/files", "/files/"):
        reply = await client.post(path, content=body, headers=KIND)
        assert reply.status_code == 200, path
        assert reply.json()["purpose"] == "batch", path
    listed = (await client.get("/files/")).json()
    assert len(listed["data"]) == 4
