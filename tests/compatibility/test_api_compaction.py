"""A client that reads a file during its compaction finds every byte at its old offset."""

import random

import httpx

from testkit.scenarios.collector import collector_of, parts_of, scattered
from testkit.servers.api import ApiWorld, served
from tidegate.collector.settings import Settings
from tidegate.testing.deployment import Deployment

COMPACT = Settings(compact_parts_min=2, compact_bytes_max=50_000)


async def test_a_download_goes_on_and_resumes_through_a_compaction() -> None:
    chance = random.Random(3)
    pieces = [chance.randbytes(chance.randrange(1, 9_000)) for _ in range(200)]
    whole = b"".join(pieces)
    async with served(ApiWorld()) as world, httpx.AsyncClient(base_url=world.url) as client:
        behind = Deployment(world.store, world.blobs, world.pubsub, world.clock, world.ids)
        file_id = await scattered(behind, pieces)
        path = f"/v1/files/{file_id}/content"
        async with client.stream("GET", path) as reply:
            tag = reply.headers["etag"]
            stream = reply.aiter_bytes(10_000)
            found = await anext(stream)
            report = await collector_of(behind, COMPACT).collect()
            assert report.files_compacted == 1
            assert len(await parts_of(behind, file_id)) < 50
            async for piece in stream:
                found += piece
        assert found == whole
        for _ in range(20):
            start = chance.randrange(len(whole))
            end = chance.randrange(start, len(whole))
            headers = {"Range": f"bytes={start}-{end}", "If-Range": tag}
            part = await client.get(path, headers=headers)
            assert (part.status_code, part.headers["etag"]) == (206, tag)
            assert part.content == whole[start : end + 1]
