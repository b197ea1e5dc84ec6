"""Under which names results are written, and what becomes of a writer that was fenced."""

import asyncio

import pytest
from typing_extensions import override

from testkit.scenarios.scenario import at_once, lines, now, scenario
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.blob_names import ResultBlob, parse
from tidegate.domain.ledger.values import Commit
from tidegate.domain.shard import Verdict
from tidegate.processor.settings import Settings
from tidegate.stores.memory import MemoryStore
from tidegate.testing.deployment import Deployment, ok
from tidegate.upstreams.base import Call, Reply


class Watched(MemoryStore):
    """Notes who writes, and takes the first writer for one that was stopped."""

    fences = False

    def watch(self, *, fences: bool = False) -> "Watched":
        self.begun: list[str] = []
        self.commits: list[Commit] = []
        self.refused = 0
        self.fences = fences
        return self

    @override
    async def begin_writer(self, writer: str, *, batch_id: str, owner: str, at: float) -> None:
        self.begun.append(writer)
        await super().begin_writer(writer, batch_id=batch_id, owner=owner, at=at)

    @override
    async def commit(self, commit: Commit) -> list[Verdict]:
        assert commit.writer in self.begun, "bytes before the ledger knew of their writer"
        self.commits.append(commit)
        if self.fences and commit.writer == self.begun[0]:
            # Its owner holds no claim for a moment, as between two blocks of shards.
            job = self._jobs[commit.batch_id]
            claims = {number: job.holds[number] for number in job.open}
            for number, hold in claims.items():
                job.holds[number] = type(hold)(epoch=hold.epoch)
            name = ResultBlob(batch_id=commit.batch_id, writer=commit.writer, label="unused").name
            assert await self.fence_and_list_deletable([name], idle_seconds=0) == [name]
            job.holds.update(claims)
        verdicts = await super().commit(commit)
        self.refused += Verdict.ACCEPTED not in verdicts
        return verdicts


@pytest.mark.parametrize("appends", [True, False])
@scenario
async def test_each_run_of_a_batch_writes_under_a_name_of_its_own(
    world: Deployment, *, appends: bool
) -> None:
    store = world.store = Watched(world.clock).watch()
    world.blobs = MemoryBlobs(appends=appends)

    async def slow(call: Call) -> Reply:
        await asyncio.sleep(0.5)
        return ok()

    async with world.processor(slow), world.processor(slow):
        first = await world.submit(lines(600))
        second = await world.submit(lines(600, prefix="other"))
        batches = [await world.end_of(first.id), await world.end_of(second.id)]
    for batch in batches:
        assert len(await world.results(batch)) == 600
    assert len(store.begun) >= 2, "a writer is for one batch"
    assert len(set(store.begun)) == len(store.begun)
    for commit in store.commits:
        for part in (part.output for part in commit.shards):
            assert part is not None
            blob = parse(part.blob)
            assert isinstance(blob, ResultBlob)
            assert (blob.batch_id, blob.writer) == (commit.batch_id, commit.writer)
            assert blob.label == ("results" if appends else commit.segment_id)


@scenario
async def test_a_run_whose_writer_was_fenced_goes_on_under_another_name(world: Deployment) -> None:
    store = world.store = Watched(world.clock).watch(fences=True)

    async def slow(call: Call) -> Reply:
        await asyncio.sleep(5.0)
        return ok("slow")

    # The slow shard is at work when the commit of the fast one is refused.
    async with world.processor({"fast": at_once, "slow": slow}):
        both = [*lines(150, "fast", "f"), *lines(150, "slow", "s")]
        batch = await world.end_of((await world.submit(both)).id)
    assert batch.counts.completed == 300
    assert len(await world.results(batch)) == 300
    assert store.refused == 1, "one commit, then a new name"
    assert len(store.begun) == 2


@scenario
async def test_what_a_fenced_writer_had_to_drop_is_handed_back_at_once(world: Deployment) -> None:
    """Its claims were alive: left to expire, each would count as lost by a crash."""

    world.store = Watched(world.clock).watch(fences=True)

    async def slow(call: Call) -> Reply:
        await asyncio.sleep(5.0)
        return ok("slow")

    async with world.processor({"fast": at_once, "slow": slow}):
        both = [*lines(150, "fast", "f"), *lines(1, "slow", "s")]
        batch = await world.end_of((await world.submit(both)).id)
    assert batch.counts.completed == 151
    assert now() < Settings().claims.lease_seconds / 2, "somebody waited for a claim to expire"
    assert [shard.crashes for shard in await world.store.get_shards(batch.id)] == [0, 0]
