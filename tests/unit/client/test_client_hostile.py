"""With any server at the address, a user reads one clear sentence within the time limit."""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from testkit.servers.hostile import (
    Close,
    HostileServer,
    ReadRequest,
    Reset,
    Say,
    Script,
    Step,
    answers,
    plain_reply,
)
from testkit.users.client import client_of
from tidegate.client.batches import get_batch, list_batches
from tidegate.client.download import download
from tidegate.client.errors import (
    LocalFileUnusable,
    ServerRefused,
    ServerUnreachable,
    TransferStopped,
    UnexpectedResponse,
)
from tidegate.client.objects import BatchObject, decode
from tidegate.client.server import ANSWER_BYTES_MAX, REFUSAL_BYTES_MAX, ApiClient
from tidegate.domain.errors import TidegateError

CERTIFICATES = Path(__file__).parents[1] / "upstreams" / "certificates"
JSON = b"content-type: application/json"


def reply(status: bytes, body: bytes, *rows: bytes) -> bytes:
    return plain_reply(body, *rows).replace(b"200 OK", status, 1)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@asynccontextmanager
async def playing(*scripts: Script, timeout_seconds: float = 10.0) -> AsyncIterator[ApiClient]:
    async with (
        HostileServer(*scripts) as hostile,
        client_of(f"http://127.0.0.1:{hostile.port}", timeout_seconds=timeout_seconds) as server,
    ):
        yield server


async def complaint(*script: Step, timeout_seconds: float = 10.0) -> TidegateError:
    """Return what a question to a server that plays this script ends in."""
    async with playing(script, timeout_seconds=timeout_seconds) as server:
        with pytest.raises(TidegateError) as raised:
            decode(await get_batch(server, "batch_x"), BatchObject)
    words = str(raised.value)
    assert words.isprintable(), words
    assert "\n" not in words
    assert len(words) < 1_000
    return raised.value


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (reply(b"200 OK", b"<html>", b"content-type: text/html"), UnexpectedResponse, "text/html"),
        (reply(b"200 OK", b"{}"), UnexpectedResponse, "no content type"),
        (reply(b"200 OK", b"{}", JSON), UnexpectedResponse, "missing required field `id`"),
        (reply(b"200 OK", b"[1]", JSON), UnexpectedResponse, "is not a batch"),
        (reply(b"200 OK", b'{"id": "x', JSON), UnexpectedResponse, "is not a batch"),
        (reply(b"200 OK", b"\xff\xfe", JSON), UnexpectedResponse, "is not a batch"),
        (reply(b"404 Not Found", b"<html>"), UnexpectedResponse, "usually ends in /v1"),
        (reply(b"302 Found", b"", b"location: http://x/"), UnexpectedResponse, "to http://x/"),
        (reply(b"401 No", b'{"error":{"message":"Wrong."}}'), ServerRefused, "OPENAI_API_KEY"),
        (reply(b"403 No", b'{"error":"not you"}'), ServerRefused, r"\(403\): not you"),
        (reply(b"500 Oh no", b"\x00\x01"), ServerRefused, r"gave no reason \(Oh no\)"),
        (b"nonsense\r\n\r\n", UnexpectedResponse, "does not speak HTTP"),
    ],
)
async def test_an_answer_of_somebody_else(
    answer: bytes, kind: type[TidegateError], words: str
) -> None:
    found = await complaint(ReadRequest(), Say(answer))
    assert isinstance(found, kind)
    assert re.search(words, str(found)), str(found)


async def test_a_server_cannot_steer_the_terminal() -> None:
    body = b'{"error":{"message":"\\u001b[2J\\u202eevil\\nline ' + b"x" * 5_000 + b'"}}'
    found = await complaint(ReadRequest(), Say(reply(b"400 Bad", body)))
    assert "\x1b" not in str(found)
    assert "evil line" in str(found)


async def test_a_long_refusal_is_read_to_its_bound_only() -> None:
    body = b'{"error":{"message":"' + b"x" * REFUSAL_BYTES_MAX + b'"}}'
    found = await complaint(ReadRequest(), Say(reply(b"400 Bad", body)))
    assert "gave no reason" in str(found), "a message that is cut off is no JSON"


async def test_an_answer_at_the_bound_is_read_and_one_beyond_is_not() -> None:
    begin, end = b'{"id":"batch_x","status":"', b'"}'
    filler = b"x" * (ANSWER_BYTES_MAX - len(begin) - len(end))
    async with playing(answers(reply(b"200 OK", begin + filler + end, JSON))) as server:
        assert len(await get_batch(server, "batch_x")) == ANSWER_BYTES_MAX
    found = await complaint(ReadRequest(), Say(reply(b"200 OK", begin + filler + b"x" + end, JSON)))
    assert "more than" in str(found)


@pytest.mark.parametrize("last", [Close(), Reset()])
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n" + JSON])
async def test_a_connection_that_breaks(begun: bytes, last: Step) -> None:
    script = [ReadRequest(), *([Say(begun + b"\r\n\r\n{")] if begun else []), last]
    found = await complaint(*script)
    assert isinstance(found, ServerUnreachable)
    assert "run the command again" in str(found)


async def test_silence_ends_after_the_time_allowed() -> None:
    found = await complaint(ReadRequest(), timeout_seconds=0.2)
    assert isinstance(found, ServerUnreachable)
    assert "--timeout" in str(found)


async def test_a_byte_now_and_then_ends_after_the_time_allowed() -> None:
    drip = Say(reply(b"200 OK", b" " * 10_000, JSON), piece_bytes=1, gap_seconds=0.01)
    found = await complaint(ReadRequest(), drip, timeout_seconds=0.3)
    assert "--timeout" in str(found)


async def test_nobody_is_there() -> None:
    async with HostileServer([]) as hostile:
        port = hostile.port
    async with client_of(f"http://127.0.0.1:{port}") as server:
        with pytest.raises(ServerUnreachable, match="start `tidegate serve`"):
            await get_batch(server, "batch_x")
    async with client_of("http://no-such-host.invalid") as server:
        with pytest.raises(ServerUnreachable, match="--base-url"):
            await get_batch(server, "batch_x")


async def test_tls_of_an_unknown_authority_names_the_flag() -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATES / "server.pem")
    body = b'{"id":"batch_x","status":"completed"}'
    script = answers(plain_reply(body, JSON))
    async with HostileServer(script, tls=tls) as hostile:
        url = f"https://localhost:{hostile.port}"
        async with client_of(url) as server:
            with pytest.raises(ServerUnreachable, match="--ca-file"):
                await get_batch(server, "batch_x")
        authority = CERTIFICATES / "authority.pem"
        async with client_of(url, ca_file=authority) as server:
            assert await get_batch(server, "batch_x") == body


async def test_a_list_that_leads_in_circles_ends() -> None:
    page = plain_reply(b'{"data":[{"id":"a"}],"has_more":true}', JSON)
    empty = plain_reply(b'{"data":[],"has_more":true}', JSON)
    for pages in ((page, page), (empty,)):
        async with playing(answers(*pages)) as server:
            with pytest.raises(UnexpectedResponse, match="no way to the next"):
                async for _ in list_batches(server):
                    pass


def quiet(done: int, total: int | None) -> None:
    """Show no progress."""


async def test_a_download_that_is_cut_again_and_again_becomes_whole(tmp_path: Path) -> None:
    head = b'HTTP/1.1 200 OK\r\netag: "t"\r\ncontent-length: 6\r\n\r\nab'
    part = (
        b'HTTP/1.1 206 Partial\r\netag: "t"\r\ncontent-range: bytes %d-5/6\r\n'
        b"content-length: %d\r\n\r\n%s"
    )
    scripts: list[Script] = [
        [ReadRequest(), Say(head), Close()],
        [ReadRequest(), Say(part % (2, 4, b"cd")), Reset()],
        [ReadRequest(), Say(part % (4, 2, b"ef"))],
    ]
    async with (
        HostileServer(*scripts) as hostile,
        client_of(f"http://127.0.0.1:{hostile.port}") as server,
    ):
        target = tmp_path / "out"
        done = await download(
            server, "file-x", target, overwrite=False, on_progress=quiet, pause_seconds=0.0
        )
        asked = [bytes(item).lower() for item in hostile.received]
    assert target.read_bytes() == b"abcdef"
    assert (done.bytes, done.resumed_from) == (6, 0)
    assert b"range: bytes=2-" in asked[1]
    assert b'if-range: "t"' in asked[1]


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"404 Not Found", b'{"error":{"message":"No such File object."}}', JSON),
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nab",
        b'HTTP/1.1 200 OK\r\netag: "t"\r\ncontent-length: 6\r\n\r\n',
    ],
    ids=["refused", "a web page", "not one byte"],
)
async def test_a_download_of_which_nothing_came_leaves_nothing(
    tmp_path: Path, answer: bytes
) -> None:
    async with playing([ReadRequest(), Say(answer), Close()], [ReadRequest(), Close()]) as server:
        with pytest.raises(TidegateError):
            await download(
                server,
                "file-x",
                tmp_path / "out",
                overwrite=False,
                on_progress=quiet,
                pause_seconds=0.0,
            )
    assert names_in(tmp_path) == []


async def test_a_download_that_brings_nothing_gives_up_and_keeps_what_came(tmp_path: Path) -> None:
    head = b'HTTP/1.1 200 OK\r\netag: "t"\r\ncontent-length: 6\r\n\r\nab'
    async with playing([ReadRequest(), Say(head), Close()], [ReadRequest(), Close()]) as server:
        with pytest.raises(TransferStopped, match="2 bytes are kept"):
            await download(
                server,
                "file-x",
                tmp_path / "out",
                overwrite=False,
                on_progress=quiet,
                pause_seconds=0.0,
            )
    assert (tmp_path / "out.part").read_bytes() == b"ab"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2", "compressed"),
        (b"200 OK\r\nconnection: close", "length of the file"),
        (b"200 OK\r\ncontent-type: Text/HTML; charset=x\r\ncontent-length: 2", "a web page"),
        (
            b"206 Partial\r\ncontent-range: bytes 1-1/2\r\ncontent-length: 1",
            "other than the requested",
        ),
    ],
)
async def test_content_that_cannot_be_trusted_is_refused(
    tmp_path: Path, head: bytes, words: str
) -> None:
    answer = b"HTTP/1.1 " + head + b"\r\n\r\nab"
    async with playing([ReadRequest(), Say(answer), Close()]) as server:
        with pytest.raises(UnexpectedResponse, match=words):
            await download(server, "file-x", tmp_path / "out", overwrite=False, on_progress=quiet)
    assert not (tmp_path / "out").exists()


async def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with playing([]) as server:
        with pytest.raises(LocalFileUnusable, match="not a regular file"):
            await download(server, "file-x", pipe, overwrite=True, on_progress=quiet)
    assert pipe.is_fifo()


async def test_only_one_process_downloads_to_a_place(tmp_path: Path) -> None:
    begun = asyncio.Event()

    def tell(done: int, total: int | None) -> None:
        if done:
            begun.set()

    head = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nab"
    async with playing([ReadRequest(), Say(head)]) as server, asyncio.TaskGroup() as group:
        first = group.create_task(
            download(server, "file-x", tmp_path / "out", overwrite=False, on_progress=tell),
            name="first download",
        )
        await begun.wait()
        with pytest.raises(TidegateError, match="Another process is downloading"):
            await download(server, "file-x", tmp_path / "out", overwrite=False, on_progress=quiet)
        first.cancel()
