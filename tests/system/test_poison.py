"""Real processes, a real ledger, and lines that kill the process that handles them."""

import asyncio
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from testkit.scenarios.scenario import lines
from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.domain.batch import Status
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.runtime.clock import SystemClock
from tidegate.stores.lanes import ThreadExecutor
from tidegate.stores.sqlite import SqliteStore
from tidegate.testing.deployment import Deployment, request_line
from tidegate.testing.ids import SeededIds

SCRIPT = Path(__file__).with_name("deadly_processor.py")
LIVES_MAX = 20


@asynccontextmanager
async def deployment(data: Path) -> AsyncIterator[Deployment]:
    """Open the ledger and the blobs that the processors work on."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        store = SqliteStore(data / "ledger.db", clock, ThreadExecutor())
        await stack.enter_async_context(store)
        blobs = FilesystemBlobs(data / "blobs")
        stack.push_async_callback(blobs.aclose)
        yield Deployment(store, blobs, MemoryPubSub(), clock, SeededIds(random.Random(0)))


async def supervise(data: Path, batch_id: str) -> list[int]:
    """Start a processor whenever one has died; return how each of them ended."""
    drain: list[int] = []
    while len(drain) < LIVES_MAX and 0 not in drain:
        life = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(SCRIPT), str(data), batch_id
        )
        try:
            drain.append(await life.wait())
        finally:
            if life.returncode is None:
                life.kill()
                await life.wait()
    return drain


async def test_a_deadly_line_ends_as_an_error_and_all_others_complete(tmp_path: Path) -> None:
    deadly = request_line("deadly", content="poison")
    async with deployment(tmp_path) as world:
        batch_id = (await world.submit([*lines(70), deadly])).id
    async with asyncio.timeout(90):
        drain = await supervise(tmp_path, batch_id)
    assert drain == [-signal.SIGKILL, -signal.SIGKILL, 0]
    async with deployment(tmp_path) as world:
        batch = await world.get(batch_id)
        found = await world.results(batch)
        shards = await world.store.get_shards(batch_id)
    assert (batch.status, batch.counts.completed, batch.counts.failed) == (Status.COMPLETED, 70, 1)
    codes = Counter(line.error.code for line in found.values() if line.error is not None)
    assert codes == {"processor_crashed": 1}
    assert found["deadly"].error is not None
    assert [list(shard.deaths.values()) for shard in shards if shard.deaths] == [[2]]


async def test_a_file_that_no_process_survives_to_read_fails_its_batch(tmp_path: Path) -> None:
    deadly = request_line("deadly", content="unreadable")
    async with deployment(tmp_path) as world:
        batch_id = (await world.submit([*lines(70), deadly])).id
    async with asyncio.timeout(90):
        drain = await supervise(tmp_path, batch_id)
    assert drain == [-signal.SIGKILL, -signal.SIGKILL, 0]
    async with deployment(tmp_path) as world:
        batch = await world.get(batch_id)
    assert (batch.status, batch.counts.total) == (Status.FAILED, 0)
    assert [(problem.code, problem.line) for problem in batch.problems] == [
        ("processor_crashed", 71)
    ]
