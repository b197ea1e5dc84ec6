"""How a writer of a new file gathers what it is given."""

from pathlib import Path

import pytest
from typing_extensions import override

from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.blobs.filesystem.files import SystemFiles
from tidegate.blobs.filesystem.store import BUFFER_BYTES


class Noting(SystemFiles):
    """Remembers how much was written at a time."""

    def __init__(self) -> None:
        self.written: list[int] = []

    @override
    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        self.written.append(len(data))
        return super().write(descriptor, data, offset)


@pytest.mark.parametrize(
    ("pieces", "written"),
    [
        pytest.param([BUFFER_BYTES - 1], [], id="less than a buffer waits"),
        pytest.param([BUFFER_BYTES], [BUFFER_BYTES], id="a large piece goes on as it is"),
        pytest.param([1, BUFFER_BYTES], [BUFFER_BYTES + 1], id="but never before a smaller one"),
        pytest.param([1, BUFFER_BYTES - 2, 1], [BUFFER_BYTES], id="until a buffer is full"),
        pytest.param([BUFFER_BYTES * 3, 5], [BUFFER_BYTES * 3], id="larger ones too"),
    ],
)
async def test_bytes_are_gathered_and_none_is_lost(
    tmp_path: Path, pieces: list[int], written: list[int]
) -> None:
    files = Noting()
    blobs = FilesystemBlobs(tmp_path, files=files)
    data = [bytes([number]) * size for number, size in enumerate(pieces)]
    async with blobs.writer("a/b") as writer:
        for piece in data:
            await writer.write(piece)
        assert files.written == written
        assert await writer.finish() == sum(pieces)
    assert await blobs.read("a/b", 0, sum(pieces)) == b"".join(data)
    await blobs.aclose()
