"""Malformed input from users: each gets a clear error, costs little, and loses nothing."""

import asyncio
import gzip
import io
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest

from testkit.processes import run_to_end
from testkit.servers.api import ApiWorld, served, served_and_run
from testkit.users.sdk import SdkUser, sdk_user
from tidegate.application.settings import Settings as DeskSettings
from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.domain.batch import Problem
from tidegate.offline.validate import Validation
from tidegate.planning.settings import Planning
from tidegate.processor.settings import Claims, Settings
from tidegate.runtime.clock import SystemClock
from tidegate.testing.deployment import ok, request_line
from tidegate.upstreams.base import Call, Reply

LINE = request_line("a")
QUICK = Settings(claims=Claims(poll_seconds=0.02))


async def answer(call: Call) -> Reply:
    return ok()


@pytest.fixture
async def user() -> AsyncIterator[SdkUser]:
    async with sdk_user(answer) as made:
        yield made


REFUSED = {
    "empty": (b"", "is empty"),
    "UTF-16": (LINE.decode().encode("utf-16"), "save it as UTF-8"),
    "UTF-16 without a mark": (LINE.decode().encode("utf-16-le"), "save it as UTF-8"),
    "UTF-16 the other way round": (LINE.decode().encode("utf-16-be"), "save it as UTF-8"),
    "UTF-32": (LINE.decode().encode("utf-32"), "save it as UTF-8"),
    "gzip": (gzip.compress(LINE), "unpack it first"),
    "zip": (b"PK\x03\x04" + bytes(60), "unpack it first"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(60), "unpack it first"),
    "an array": (b"[" + LINE + b"]", "on a line of its own"),
    "a first line that is not UTF-8": (b'{"a":"\xff"}\n', ""),
    "NaN in the first line": (b'{"a":NaN}\n', ""),
    "blank lines alone": (b"\n \r\n\n", ""),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_file_that_is_not_jsonl_is_refused_with_its_kind(user: SdkUser, name: str) -> None:
    data, hint = REFUSED[name]
    with pytest.raises(openai.BadRequestError) as caught:
        await user.upload(data)
    assert "Invalid file format for Batch API. Must be .jsonl" in caught.value.message
    assert hint in caught.value.message
    assert await user.world.blobs.list_names("") == []


def line(custom_id: str, **body: object) -> bytes:
    whole = json.loads(request_line(custom_id))
    whole["body"] |= body
    return json.dumps(whole).encode() + b"\n"


LATER = {
    "NaN": line("b", x=float("nan")),
    "minus infinity": line("b", x=float("-inf")),
    "UTF-16": LINE.decode().encode("utf-16-le"),
    "gzip": gzip.compress(LINE, mtime=0).replace(b"\n", b"") + b"\n",
    "a raw control character": LINE.replace(b'"a"', b'"a\x01"'),
    "not UTF-8": LINE.replace(b'"hi"', b'"\xff"'),
    "not UTF-8, and half a pair": LINE.replace(b'"hi"', b'"\xff\\ud800"'),
    "100,000 deep": line("b", x="DEEP").replace(b'"DEEP"', b"[" * 100_000 + b"]" * 100_000),
    "two objects": LINE.strip() + LINE,
    "a NUL": b"\x00\n",
}


@pytest.mark.parametrize("name", LATER)
async def test_a_later_line_that_is_no_json_fails_the_batch_with_its_number(
    user: SdkUser, name: str
) -> None:
    batch = await user.end_of((await user.submit([LINE, LATER[name], line("c")])).id)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    first = batch.errors.data[0]
    assert (first.line, first.code) == (2, "invalid_json_line")
    assert ("too deeply" in (first.message or "")) is (name == "100,000 deep")


async def judged(path: Path, data: bytes) -> list[Problem]:
    """Return what `tidegate validate` says of a file."""
    await asyncio.to_thread(path.write_bytes, data)
    with Validation(DeskSettings(), Planning(), io.BytesIO) as validation:
        await validation.read(path)
        return list(validation.problems())


@pytest.mark.parametrize("name", REFUSED)
async def test_the_command_line_says_the_same_of_a_file(
    user: SdkUser, tmp_path: Path, name: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await user.upload(REFUSED[name][0])
    messages = [it.message for it in await judged(tmp_path / "in.jsonl", REFUSED[name][0])]
    assert any(message in caught.value.message for message in messages), messages


@pytest.mark.parametrize("name", LATER)
async def test_the_command_line_says_the_same_of_a_line(
    user: SdkUser, tmp_path: Path, name: str
) -> None:
    data = LINE + LATER[name] + line("c")
    batch = await user.end_of((await user.submit([data])).id)
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(it.line, it.code, it.message) for it in await judged(tmp_path / "in", data)] == [
        (it.line, it.code, it.message) for it in batch.errors.data
    ]


@pytest.mark.parametrize("name", ["UTF-16", "100,000 deep"])
def test_the_command_ends_with_a_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(REFUSED[name][0] if name in REFUSED else LINE + LATER[name])
    done = run_to_end("validate", str(path))
    assert done.returncode == 1
    assert done.stderr == ""
    assert ("save it as UTF-8" if name == "UTF-16" else "nested too deeply") in done.stdout


async def test_of_a_key_that_stands_twice_the_last_counts(user: SdkUser) -> None:
    """So does every JSON library that model servers use; the bytes go on as they were written."""
    twice = b'{"custom_id":"x","custom_id":"kept",' + LINE.strip()[1:].replace(
        b'"custom_id": "a", ', b""
    )
    batch = await user.end_of((await user.submit([twice])).id)
    assert set(await user.results(batch.output_file_id)) == {"kept"}
    streams = LINE.replace(b'"model"', b'"stream": false, "stream": true, "model"')
    batch = await user.end_of((await user.submit([streams])).id)
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].code == "streaming_unsupported"


async def test_control_characters_in_a_custom_id_stay_escaped(user: SdkUser) -> None:
    names = ["\x00", "a\nb", "\x1b[2J", "\u2028", "\x7f", "\u202e"]
    batch = await user.end_of((await user.submit([line(name) for name in names])).id)
    content = await user.content(batch.output_file_id or "")
    lines = content.split(b"\n")[:-1]
    assert sorted(json.loads(it)["custom_id"] for it in lines) == sorted(names)
    again = await user.end_of((await user.submit([line(name) for name in names * 2])).id)
    assert again.errors is not None
    assert again.errors.data is not None
    assert [it.code for it in again.errors.data] == ["duplicate_custom_id"] * len(names)
    assert all((it.message or "").isprintable() for it in again.errors.data)


async def test_50_001_lines_are_one_too_many(user: SdkUser) -> None:
    lines = [request_line(str(number)) for number in range(50_001)]
    batch = await user.end_of((await user.submit(lines)).id)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [it.code for it in batch.errors.data] == ["too_many_tasks"]
    assert "50001" in (batch.errors.data[0].message or "").replace(",", "")


@pytest.mark.slow
async def test_a_single_line_of_200_mb_is_never_held(tmp_path: Path) -> None:
    piece = b" " * 2**20
    head = (
        b'--tide\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--tide\r\n'
        b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n{'
    )
    tail = b"}\n" + LINE + b"\r\n--tide--\r\n"

    async def body() -> AsyncIterator[bytes]:
        yield head
        for _ in range(199):
            yield piece
        yield tail

    blobs = FilesystemBlobs(tmp_path)
    world = ApiWorld(blobs=blobs, clock=SystemClock())
    async with (
        served_and_run(world, answer, QUICK),
        httpx.AsyncClient(base_url=world.url, timeout=60, trust_env=False) as client,
        openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="unused") as sdk,
    ):
        user = SdkUser(sdk, world)
        kind = {"content-type": "multipart/form-data; boundary=tide"}
        tracemalloc.start()
        try:
            reply = await client.post("/v1/files", content=body(), headers=kind)
            assert reply.status_code == 200, reply.text
            batch = await user.end_of((await user.create(reply.json()["id"])).id)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    await blobs.aclose()
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [(it.line, it.code) for it in batch.errors.data] == [(1, "line_too_large")]
    assert peak < 40_000_000, peak


async def test_a_long_name_in_the_metadata_is_not_repeated_whole() -> None:
    create = {"input_file_id": "f", "endpoint": "/v1/embeddings", "completion_window": "24h"}
    async with (
        served(ApiWorld()) as world,
        httpx.AsyncClient(base_url=world.url, trust_env=False) as client,
    ):
        for value in (1, "text"):
            metadata = {"k" * 500_000: value}
            reply = await client.post("/v1/batches", json=create | {"metadata": metadata})
            assert reply.status_code == 400
            error = reply.json()["error"]
            assert error["param"].startswith("metadata")
            assert "kkk" in error["message"]
            assert len(reply.content) < 1_000, value
