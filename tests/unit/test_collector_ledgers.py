"""The collector on each ledger, SQLite's real SQL among them, and on real files."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from testkit.scenarios.collector import collector_of, parts_of, planned, results_of
from testkit.scenarios.scenario import Story, at_once, lines
from tidegate.blobs.memory import MemoryBlobs
from tidegate.collector.settings import Settings
from tidegate.domain.batch import Status
from tidegate.domain.ledger.values import Want
from tidegate.domain.shard import Verdict
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.stores.sqlite import SqliteStore
from tidegate.testing.deployment import TENANT, Deployment, model_of, ok
from tidegate.testing.ids import SeededIds
from tidegate.testing.inline_lanes import InlineExecutor
from tidegate.testing.loop import LoopClock, run_virtual
from tidegate.upstreams.base import Call, Reply

QUICK = Settings(
    interval_seconds=1.0,
    sweep_seconds=1.0,
    retention_seconds=100.0,
    download_seconds_max=5.0,
    upload_seconds_max=10.0,
    compact_parts_min=4,
    compact_bytes_max=2**20,
)


@pytest.fixture(params=["memory", "sqlite"])
def tell(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], None]:
    @asynccontextmanager
    async def made() -> AsyncIterator[Deployment]:
        deployment = Deployment.make()
        if request.param == "memory":
            yield deployment
            return
        clock = LoopClock(asyncio.get_running_loop())
        async with SqliteStore(tmp_path / "ledger.db", clock, InlineExecutor()) as store:
            yield Deployment(
                store, MemoryBlobs(appends=True), MemoryPubSub(), clock, SeededIds(random.Random(0))
            )

    def run(story: Story) -> None:
        async def main() -> None:
            async with made() as deployment:
                await story(deployment)

        run_virtual(main())

    return run


async def slowly(call: Call) -> Reply:
    await asyncio.sleep(1.0)
    return ok(model_of(call))


def test_a_whole_life(tell: Callable[[Story], None]) -> None:
    async def story(deployment: Deployment) -> None:
        deployment.blobs = MemoryBlobs()  # Each commit is a blob and a part.
        collector = collector_of(deployment, QUICK)
        upload = deployment.ids.make("upload_")
        blob = f"uploads/{upload}"
        at = deployment.clock.now()
        await deployment.store.begin_upload(upload, tenant=TENANT, blob=blob, at=at)
        await deployment.blobs.put(blob, b"never finished")
        batch = await deployment.submit(lines(200))
        async with deployment.processor(slowly), deployment.processor(slowly):
            batch = await deployment.end_of(batch.id)
        file_id = batch.output_file_id or ""
        before, content = await parts_of(deployment, file_id), await deployment.content(file_id)
        assert len(before) >= 4
        report = await collector.collect()
        assert (report.files_compacted, report.parts_merged) == (1, len(before) - 1)
        assert report.blobs_deleted == 1, "the upload that nobody finished"
        assert await deployment.content(file_id) == content
        for part in before:
            await deployment.blobs.read(part.blob, part.offset, part.length)
        await deployment.store.delete_file(TENANT, batch.input_file_id)
        await asyncio.sleep(11.0)
        report = await collector.collect()
        assert (report.files_released, report.blobs_deleted) == (1, len(before))
        await asyncio.sleep(100.0)
        assert (await collector.collect()).batches_dropped == 1
        await deployment.store.delete_file(TENANT, file_id)
        await collector.collect()
        await asyncio.sleep(5.0)
        await collector.collect()
        assert await deployment.blobs.list_names("") == []

    tell(story)


def test_lost_lines_run_again_and_their_former_holder_is_fenced(
    tell: Callable[[Story], None],
) -> None:
    async def story(deployment: Deployment) -> None:
        store = deployment.store
        batch = await planned(deployment, await deployment.submit(lines(6)), shards=3)
        [claimed] = await store.claim_shards(
            "proc", [Want(batch_id=batch.id, model="m", limit=2)], lease_seconds=500.0
        )
        first, second = claimed.shards
        for writer in ("writer", "another"):
            at = deployment.clock.now()
            await store.begin_writer(writer, batch_id=batch.id, owner="proc", at=at)
        assert await results_of(deployment, batch, first, "writer") == [Verdict.ACCEPTED]
        [part] = await parts_of(deployment, batch.output_file_id or "")
        await deployment.blobs.delete(part.blob)
        report = await collector_of(deployment, QUICK).collect()
        assert (report.lines_rerun, report.drift) == (2, 0)
        now = await deployment.get(batch.id)
        assert (now.counts.completed, now.output_bytes) == (0, 0)
        assert await results_of(deployment, batch, second, "writer") == [Verdict.STALE]
        assert await results_of(deployment, batch, second, "another") == [Verdict.ACCEPTED]
        async with deployment.processor(at_once):
            batch = await deployment.end_of(batch.id)
        assert (batch.status, batch.counts.completed) == (Status.COMPLETED, 6)
        assert sorted(await deployment.results(batch)) == [f"line-{n}" for n in range(1, 7)]

    tell(story)


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("midst", ["get_batch", "repair"])
def test_a_commit_during_a_repair_is_seen(
    tell: Callable[[Story], None], midst: str, *, bad: bool
) -> None:
    async def story(deployment: Deployment) -> None:
        store = deployment.store
        batch = await planned(deployment, await deployment.submit(lines(6)), shards=3)
        [claimed] = await store.claim_shards(
            "proc", [Want(batch_id=batch.id, model="m", limit=2)], lease_seconds=500.0
        )
        first, second = claimed.shards
        for writer in ("writer", "another"):
            at = deployment.clock.now()
            await store.begin_writer(writer, batch_id=batch.id, owner="proc", at=at)
        assert await results_of(deployment, batch, first, "writer") == [Verdict.ACCEPTED]
        [part] = await parts_of(deployment, batch.output_file_id or "")
        await deployment.blobs.delete(part.blob)
        method = getattr(store, midst)

        async def met(*arguments: object) -> object:
            setattr(store, midst, method)
            verdicts = await results_of(deployment, batch, second, "another", bad=bad)
            assert verdicts == [Verdict.ACCEPTED]
            return await method(*arguments)

        setattr(store, midst, met)
        report = await collector_of(deployment, QUICK).collect()
        assert (report.lines_rerun, report.drift) == (2, 0)
        assert getattr(store, midst) == method, "nothing came in between"
        async with deployment.processor(at_once):
            batch = await deployment.end_of(batch.id)
        assert (batch.counts.completed, batch.counts.failed) == ((4, 2) if bad else (6, 0))
        assert sorted(await deployment.results(batch)) == [f"line-{n}" for n in range(1, 7)]

    tell(story)
