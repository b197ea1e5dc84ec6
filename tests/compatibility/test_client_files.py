"""The client's files against the real API: up, listed, down, cut off and gone on with."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from testkit.servers.api import ApiWorld, served
from testkit.users.client import client_of
from tidegate.client.download import download
from tidegate.client.errors import LocalFileUnusable, ServerRefused, UnexpectedResponse
from tidegate.client.files import FileUpload, delete_file, get_file, list_files, upload
from tidegate.client.objects import Deleted, FileObject, decode
from tidegate.client.server import ApiClient


@pytest.fixture
async def world() -> AsyncIterator[ApiWorld]:
    async with served(ApiWorld()) as world:
        yield world


@pytest.fixture
async def server(world: ApiWorld) -> AsyncIterator[ApiClient]:
    async with client_of(world.url) as server:
        yield server


def written(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def quiet(done: int, total: int | None) -> None:
    """Show no progress."""


async def put(server: ApiClient, path: Path, data: bytes, *, purpose: str = "user_data") -> str:
    written(path, data)
    body = await upload(server, FileUpload(path=path, purpose=purpose), quiet)
    return decode(body, FileObject).id


async def fetch(server: ApiClient, file_id: str, target: Path) -> tuple[int, int]:
    done = await download(server, file_id, target, overwrite=False, on_progress=quiet)
    return done.bytes, done.resumed_from


async def test_a_file_goes_up_in_pieces_and_comes_back_the_same(
    server: ApiClient, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 4_000
    path = tmp_path / 'na"me.bin'
    written(path, data)
    seen: list[tuple[int, int | None]] = []
    body = await upload(
        server,
        FileUpload(path=path, purpose="user_data", expires_seconds=7_200),
        lambda done, total: seen.append((done, total)),
    )
    file = decode(body, FileObject)
    assert (file.bytes, file.purpose) == (len(data), "user_data")
    assert file.created_at is not None
    assert file.expires_at == file.created_at + 7_200
    assert seen[0] == (0, len(data))
    assert seen[-1] == (len(data), len(data))
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert await fetch(server, file.id, tmp_path / "out") == (len(data), 0)
    assert (tmp_path / "out").read_bytes() == data
    assert names(tmp_path) == sorted([path.name, "out"])


async def test_an_empty_file_comes_back_empty(server: ApiClient, tmp_path: Path) -> None:
    file_id = await put(server, tmp_path / "in", b"")
    assert await fetch(server, file_id, tmp_path / "out") == (0, 0)
    assert (tmp_path / "out").read_bytes() == b""


async def test_a_download_goes_on_where_it_was_cut(
    world: ApiWorld, server: ApiClient, tmp_path: Path
) -> None:
    data = b"0123456789" * 1_000
    file_id = await put(server, tmp_path / "in", data)
    target = tmp_path / "out"
    leave_part(target, file_id, b"0123456789" * 300, tag=f'"{file_id}-{len(data)}"')
    assert await fetch(server, file_id, target) == (len(data), 3_000)
    assert target.read_bytes() == data
    assert names(tmp_path) == ["in", "out"]


@pytest.mark.parametrize(
    ("part", "tag"),
    [
        (b"of another state of the file", '"{id}-1"'),
        (b"with a mark of another file", None),
        (b"longer than the whole" * 1_000, '"old"'),
    ],
)
async def test_bytes_of_something_else_are_never_kept(
    server: ApiClient, tmp_path: Path, part: bytes, tag: str | None
) -> None:
    data = b"0123456789" * 1_000
    file_id = await put(server, tmp_path / "in", data)
    target = tmp_path / "out"
    other = "file-other" if tag is None else file_id
    leave_part(target, other, part, tag=(tag or '"x"').replace("{id}", file_id))
    await fetch(server, file_id, target)
    assert target.read_bytes() == data


async def test_a_part_that_is_whole_already_needs_no_byte(
    server: ApiClient, tmp_path: Path
) -> None:
    data = b"0123456789"
    file_id = await put(server, tmp_path / "in", data)
    target = tmp_path / "out"
    leave_part(target, file_id, data, tag=f'"{file_id}-{len(data)}"')
    assert await fetch(server, file_id, target) == (10, 10)
    assert target.read_bytes() == data


async def test_a_part_that_is_too_long_is_dropped_and_reported(
    server: ApiClient, tmp_path: Path
) -> None:
    data = b"0123456789"
    file_id = await put(server, tmp_path / "in", data)
    target = tmp_path / "out"
    leave_part(target, file_id, data + b"more", tag=f'"{file_id}-{len(data)}"')
    with pytest.raises(UnexpectedResponse, match="run the command again"):
        await fetch(server, file_id, target)
    assert await fetch(server, file_id, target) == (10, 0)
    assert target.read_bytes() == data


async def test_what_exists_is_replaced_only_when_asked(server: ApiClient, tmp_path: Path) -> None:
    file_id = await put(server, tmp_path / "in", b"new")
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with pytest.raises(LocalFileUnusable, match="--overwrite"):
        await fetch(server, file_id, target)
    assert target.read_bytes() == b"old"
    await download(server, file_id, target, overwrite=True, on_progress=quiet)
    assert target.read_bytes() == b"new"


async def test_a_place_that_cannot_be_written_is_one_sentence(
    server: ApiClient, tmp_path: Path
) -> None:
    file_id = await put(server, tmp_path / "in", b"x")
    for target, words in (
        (tmp_path, "is a directory"),
        (tmp_path / "nowhere" / "out", "No such file or directory"),
    ):
        with pytest.raises(LocalFileUnusable, match=words):
            await fetch(server, file_id, target)


async def test_lists_are_walked_page_by_page(
    world: ApiWorld, server: ApiClient, tmp_path: Path
) -> None:
    ids = [await put(server, tmp_path / "in", b"x") for _ in range(203)]
    found = [decode(item, FileObject).id async for item in list_files(server)]
    assert sorted(found) == sorted(ids)
    assert world.asked.count("GET /v1/files") == 3
    some = [decode(item, FileObject).id async for item in list_files(server, limit=101)]
    assert some == found[:101]
    assert [item async for item in list_files(server, purpose="batch")] == []


async def test_a_deleted_file_is_gone(server: ApiClient, tmp_path: Path) -> None:
    file_id = await put(server, tmp_path / "in", b"x")
    assert decode(await delete_file(server, file_id), Deleted).deleted
    with pytest.raises(ServerRefused, match="404") as refused:
        await get_file(server, file_id)
    assert refused.value.status == 404


async def test_what_the_server_refuses_is_reported_in_its_words(
    server: ApiClient, tmp_path: Path
) -> None:
    with pytest.raises(ServerRefused, match=r"\(400\): Invalid file format for Batch API"):
        await put(server, tmp_path / "in", b"no json", purpose="batch")


async def test_a_file_that_cannot_be_read_is_one_sentence(
    server: ApiClient, tmp_path: Path
) -> None:
    with pytest.raises(LocalFileUnusable, match="can't be read: No such file or directory"):
        await upload(server, FileUpload(path=tmp_path / "nothing", purpose="batch"), quiet)


def leave_part(target: Path, file_id: str, data: bytes, *, tag: str) -> None:
    """Leave what a download leaves that was cut off."""
    target.with_name(f"{target.name}.part").write_bytes(data)
    mark = json.dumps({"file_id": file_id, "tag": tag})
    target.with_name(f"{target.name}.part.json").write_text(mark)
