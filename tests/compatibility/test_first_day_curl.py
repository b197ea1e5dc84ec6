"""The calls of a first day, word for word as everyone writes them.

They are made with curl where the machine has it, and always with the same bytes by httpx.
"""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from testkit.users.sdk import SdkUser, sdk_user
from tidegate.testing.deployment import ok, request_line
from tidegate.upstreams.base import Call, Reply

Answered = dict[str, object]
CURL = shutil.which("curl")
JSON = "Content-Type: application/json"


class Sender(Protocol):
    """Sends what these arguments ask of curl, in this folder; returns what came back."""

    __name__: str

    async def __call__(self, folder: Path, /, *arguments: str) -> bytes: ...


async def by_curl(folder: Path, *arguments: str) -> bytes:
    assert CURL is not None
    process = await asyncio.create_subprocess_exec(
        CURL,
        *arguments,
        cwd=folder,
        env={"PATH": os.defpath, "NO_PROXY": "*"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        output, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return output


async def by_httpx(folder: Path, *arguments: str) -> bytes:
    """Send what curl would, for the few options that are used here."""
    method, url, headers, fields, data = "GET", "", dict[str, str](), list[str](), ""
    rest = iter(arguments)
    for word in rest:
        if word == "-X":
            method = next(rest)
        elif word == "-F":
            fields.append(next(rest))
        elif word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif word == "-d":
            data = next(rest)
        else:
            url = word
    body = data.encode()
    if fields:
        edge = "------------------------d74496d66958873e"
        headers["Content-Type"] = f"multipart/form-data; boundary={edge}"
        parts = [f"--{edge}\r\n".encode() + _part(folder, field) + b"\r\n" for field in fields]
        body = b"".join(parts) + f"--{edge}--\r\n".encode()
    async with httpx.AsyncClient(timeout=30) as client:
        return (await client.request(method, url, headers=headers, content=body)).content


def _part(folder: Path, field: str) -> bytes:
    name, _, value = field.partition("=")
    head = f'Content-Disposition: form-data; name="{name}"'
    if not value.startswith("@"):
        return f"{head}\r\n\r\n{value}".encode()
    head += f'; filename="{value[1:]}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    return head.encode() + (folder / value[1:]).read_bytes()


SENDERS: list[Sender] = [by_httpx] if CURL is None else [by_httpx, by_curl]


async def answer(call: Call) -> Reply:
    return ok()


@pytest.fixture
async def user() -> AsyncIterator[SdkUser]:
    async with sdk_user(answer) as made:
        yield made


def read(output: bytes) -> Answered:
    answered = json.loads(output)
    assert isinstance(answered, dict)
    return answered


@pytest.mark.parametrize("send", SENDERS, ids=lambda send: send.__name__)
async def test_the_first_day(user: SdkUser, tmp_path: Path, send: Sender) -> None:
    (tmp_path / "batch_input.jsonl").write_bytes(request_line("one") + request_line("two"))
    base = f"http://localhost:{user.world.port}"

    form = ("-F", "purpose=batch", "-F", "file=@batch_input.jsonl")
    file = read(await send(tmp_path, "-X", "POST", f"{base}/v1/files", *form))
    assert (file["object"], file["filename"]) == ("file", "batch_input.jsonl")

    body = (
        f'{{"input_file_id": "{file["id"]}", "endpoint": "/v1/chat/completions", '
        '"completion_window": "24h"}'
    )
    batch = read(await send(tmp_path, "-X", "POST", f"{base}/v1/batches", "-H", JSON, "-d", body))
    assert (batch["object"], batch["status"]) == ("batch", "validating")

    await user.end_of(str(batch["id"]))
    # What `jq '{status, request_counts}'` shows.
    shown = read(await send(tmp_path, f"{base}/v1/batches/{batch['id']}"))
    assert {name: shown[name] for name in ("status", "request_counts")} == {
        "status": "completed",
        "request_counts": {"total": 2, "completed": 2, "failed": 0},
    }

    output = await send(tmp_path, f"{base}/v1/files/{shown['output_file_id']}/content")
    assert {read(line)["custom_id"] for line in output.splitlines()} == {"one", "two"}


@pytest.mark.parametrize("send", SENDERS, ids=lambda send: send.__name__)
async def test_the_other_calls(user: SdkUser, tmp_path: Path, send: Sender) -> None:
    (tmp_path / "prompts.txt").write_bytes(request_line("one"))
    base = f"http://localhost:{user.world.port}/v1"
    # The file may come before the purpose, and -F makes it a POST without -X.
    form = ("-F", "file=@prompts.txt", "-F", "purpose=batch")
    file = read(await send(tmp_path, "-X", "POST", f"{base}/files", *form))
    assert file["purpose"] == "batch"
    listed = read(await send(tmp_path, f"{base}/files?purpose=batch"))
    assert listed["data"] == [file]
    deleted = read(await send(tmp_path, "-X", "DELETE", f"{base}/files/{file['id']}"))
    assert deleted == {"id": file["id"], "object": "file", "deleted": True}
    missing = read(await send(tmp_path, f"{base}/files/{file['id']}"))
    assert missing["error"] == {
        "message": f"No such File object: {file['id']}",
        "type": "invalid_request_error",
        "param": "id",
        "code": None,
    }
    models = read(await send(tmp_path, f"{base}/models"))
    assert models["object"] == "list"
    body = json.dumps(
        {"input_file_id": "nowhere", "endpoint": "/v1/embeddings", "completion_window": "24h"}
    )
    batch = read(await send(tmp_path, "-X", "POST", f"{base}/batches", "-H", JSON, "-d", body))
    await user.end_of(str(batch["id"]))
    cancelled = read(await send(tmp_path, "-X", "POST", f"{base}/batches/{batch['id']}/cancel"))
    assert "Cannot cancel a batch with status 'failed'." in str(cancelled["error"])


@pytest.mark.parametrize("send", SENDERS, ids=lambda send: send.__name__)
async def test_a_file_above_a_megabyte(user: SdkUser, tmp_path: Path, send: Sender) -> None:
    """Above a megabyte curl asks first whether it may send the body (`Expect: 100-continue`)."""
    data = b"".join(request_line(str(n), content="x" * 1_000) for n in range(1_500))
    (tmp_path / "batch_input.jsonl").write_bytes(data)
    url = f"http://localhost:{user.world.port}/v1/files"
    form = ("-F", "purpose=batch", "-F", "file=@batch_input.jsonl")
    file = read(await send(tmp_path, "-X", "POST", url, *form))
    assert file["bytes"] == len(data)
    assert await user.content(str(file["id"])) == data
