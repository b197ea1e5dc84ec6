"""Every blob store keeps the contract, and the real ones answer as the one in memory does."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings, strategies as st

from testkit.faulty_files import FaultyFiles
from tidegate.blobs.base import BlobStore
from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.errors import BlobMissing, StorageFull
from tidegate.testing.contract import blobs as contract, blobs_unreadable


def make(kind: str, root: Path) -> BlobStore:
    match kind:
        case "memory":
            return MemoryBlobs()
        case "memory-appending":
            return MemoryBlobs(appends=True)
        case "filesystem":
            return FilesystemBlobs(root / "blobs")
        case _:
            raise AssertionError(kind)


@pytest.fixture(params=["memory", "memory-appending", "filesystem"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    store = make(request.param, tmp_path)
    yield store
    await store.aclose()


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture(params=[errno.EIO, errno.EACCES, errno.ESTALE])
def fail_reads(request: pytest.FixtureRequest, files: FaultyFiles) -> Callable[[], None]:
    return lambda: files.fail("open_to_read", request.param)


appending = pytest.mark.parametrize("blobs", ["memory-appending", "filesystem"], indirect=True)
not_appending = pytest.mark.parametrize("blobs", ["memory"], indirect=True)


class TestWriter(contract.WriterContract):
    pass


class TestPut(contract.PutContract):
    pass


@appending
class TestAppend(contract.AppendContract):
    pass


@not_appending
class TestNoAppend(contract.NoAppendContract):
    pass


class TestRead(contract.ReadContract):
    pass


class TestLength(contract.LengthContract):
    pass


class TestUnreadable(blobs_unreadable.UnreadableContract):
    """The disk alone: reading memory never fails."""

    @pytest.fixture
    async def blobs(self, files: FaultyFiles, tmp_path: Path) -> AsyncIterator[BlobStore]:
        store = FilesystemBlobs(tmp_path / "blobs", files=files)
        yield store
        await store.aclose()


class TestLeftovers(contract.LeftoversContract):
    pass


class TestDelete(contract.DeleteContract):
    pass


class TestList(contract.ListContract):
    pass


class TestName(contract.NameContract):
    pass


class TestLife(contract.LifeContract):
    pass


def test_only_the_disk_is_durable(tmp_path: Path) -> None:
    assert not MemoryBlobs().durable
    assert FilesystemBlobs(tmp_path).durable


async def test_memory_is_full_at_its_bound() -> None:
    blobs = MemoryBlobs(appends=True, bytes_max=10)
    await blobs.put("a", b"12345")
    assert await blobs.append("b", b"12345", after=0) == 0
    with pytest.raises(StorageFull, match="10 bytes"):
        await blobs.append("b", b"6", after=0)
    with pytest.raises(StorageFull):
        await blobs.put("c", b"1")
    with pytest.raises(StorageFull):
        await blobs.check()
    async with blobs.writer("d") as writer:
        with pytest.raises(StorageFull):
            await writer.write(b"1")
    assert await blobs.read("b", 0, 5) == b"12345"
    await blobs.delete("a")
    assert await blobs.append("b", b"67890", after=0) == 5


NAMES = st.sampled_from(["a", "b/c", "b/d"])
GROWING = st.sampled_from(["r/1", "r/2"])
BYTES = st.binary(max_size=20)
CALLS = st.one_of(
    st.tuples(st.just("put"), NAMES, BYTES),
    st.tuples(st.just("append"), GROWING, BYTES),
    st.tuples(st.just("append to known"), GROWING, BYTES),
    st.tuples(st.just("delete"), st.one_of(NAMES, GROWING), st.just(b"")),
    st.tuples(st.just("read"), st.one_of(NAMES, GROWING), BYTES),
    st.tuples(st.just("length"), st.one_of(NAMES, GROWING), st.just(b"")),
    st.tuples(st.just("leftovers"), st.just(""), st.just(b"")),
    st.tuples(st.just("list"), st.sampled_from(["", "a", "b/", "r/1"]), st.just(b"")),
)


async def answer(blobs: BlobStore, verb: str, name: str, data: bytes) -> object:
    match verb:
        case "put":
            await blobs.put(name, data)
        case "append":
            return await blobs.append(name, data, after=0)
        case "append to known":
            with suppress(BlobMissing):
                await blobs.append(name, data, after=len(data))
        case "delete":
            await blobs.delete(name)
        case "leftovers":
            return await blobs.remove_leftovers()
        case _:
            return await look(blobs, verb, name, data)
    return None


async def look(blobs: BlobStore, verb: str, name: str, data: bytes) -> object:
    if verb == "list":
        return await blobs.list_names(name)
    with suppress(BlobMissing):
        if verb == "length":
            return await blobs.length(name)
        return await blobs.read(name, len(data) // 2, len(data))
    return None


@settings(max_examples=40, deadline=None)
@given(st.lists(CALLS, max_size=25))
def test_the_disk_answers_as_memory_does(calls: list[tuple[str, str, bytes]]) -> None:
    async def compare() -> None:
        memory = MemoryBlobs(appends=True)
        with TemporaryDirectory() as root:
            disk = FilesystemBlobs(Path(root), handles_max=1)
            for verb, name, data in calls:
                expected = await answer(memory, verb, name, data)
                assert await answer(disk, verb, name, data) == expected
            await disk.aclose()

    asyncio.run(compare())
