"""Several processes on one SQLite file: two ledgers in one test, and real processes that die."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tidegate.domain.batch import Status
from tidegate.domain.shard import Verdict
from tidegate.stores.base import Store
from tidegate.stores.lanes import ThreadExecutor
from tidegate.stores.sqlite import SqliteStore
from tidegate.testing.contract.stores import (
    LEASE,
    START,
    TENANT,
    ManualClock,
    a_batch,
    a_commit,
    claim_shards,
    planned,
    result,
)
from tidegate.testing.inline_lanes import InlineExecutor


class Start(Protocol):
    """Starts a Python script in a process of its own."""

    async def __call__(self, script: str, *arguments: str) -> asyncio.subprocess.Process: ...


PREAMBLE = """
import asyncio, sys
from pathlib import Path
from tidegate.domain.ledger.values import Want
from tidegate.stores.lanes import ThreadExecutor
from tidegate.stores.sqlite import SqliteStore
from tidegate.testing.contract.stores import ManualClock, START, TENANT, a_batch, a_plan

def opened():
    return SqliteStore(Path(sys.argv[1]), ManualClock(), ThreadExecutor())
"""

CLAIM_EVERYTHING = (
    PREAMBLE
    + """
async def main(owner):
    print("ready", flush=True)
    sys.stdin.readline()
    async with opened() as store:
        await store.create_batch(a_batch())
        planning = await store.claim_planning(owner, lease_seconds=60)
        if planning is not None:
            await store.plan_batch(planning.claim, a_plan("batch_1", [("m", 1)] * 60), at=START)
        while (await store.get_batch(TENANT, "batch_1")).status == "validating":
            await asyncio.sleep(0.005)
        wants = [Want(batch_id="batch_1", model="m", limit=2)]
        while claimed := await store.claim_shards(owner, wants, lease_seconds=60):
            for one in claimed[0].shards:
                print(one.shard.plan.number)

asyncio.run(main(sys.argv[2]))
"""
)

COMMIT_OR_CONDEMN = (
    PREAMBLE
    + """
from tidegate.domain.file import Part
from tidegate.domain.ledger.values import Commit, ShardCommit
from tidegate.domain.shard import Tally

def blob(number):
    return f"results/batch_1/writer_{number}.x"

async def commit(store, number):
    part = Part(blob=blob(number), offset=0, length=10)
    shard = ShardCommit(number=number, epoch=1, sequence=0, indexes=(0,), output=part,
                        errors=None, tally=Tally(completed=1))
    request = Commit(segment_id=f"s{number}", batch_id="batch_1", shards=(shard,), at=START,
                     writer=f"writer_{number}")
    return await store.commit(request) == ["accepted"]

async def fence(store, number):
    return await store.fence_and_list_deletable([blob(number)], idle_seconds=1) == [blob(number)]

async def main(verb):
    clock = ManualClock(START + 60)
    async with SqliteStore(Path(sys.argv[1]), clock, ThreadExecutor()) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(60):
            if await verb(store, number):
                print(number)

asyncio.run(main({"commit": commit, "fence": fence}[sys.argv[2]]))
"""
)

WRITE_FOR_EVER = (
    PREAMBLE
    + """
async def main():
    async with opened() as store:
        for number in range(1_000_000):
            batch = await store.create_batch(a_batch(f"batch_{number}"))
            print(batch.id, flush=True)

asyncio.run(main())
"""
)


VERBS = ("commit", "fence")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def pair(path: Path, clock: ManualClock) -> AsyncIterator[tuple[Store, Store]]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(SqliteStore(path, clock, ThreadExecutor()))
        second = await stack.enter_async_context(SqliteStore(path, clock, ThreadExecutor()))
        yield first, second


async def test_two_ledgers_open_a_fresh_file_together(path: Path, clock: ManualClock) -> None:
    stores = [SqliteStore(path, clock, ThreadExecutor()) for _ in range(4)]
    await asyncio.gather(*(store.__aenter__() for store in stores))
    await asyncio.gather(
        *(store.create_batch(a_batch(f"batch_{n}")) for n, store in enumerate(stores))
    )
    for store in stores:
        assert len((await store.list_batches(TENANT, after=None, limit=9)).items) == 4
        await store.__aexit__(None, None, None)


async def test_one_sees_at_once_what_the_other_wrote(pair: tuple[Store, Store]) -> None:
    first, second = pair
    batch = await first.create_batch(a_batch())
    assert await second.get_batch(TENANT, batch.id) == batch
    cancelling = await second.cancel_batch(TENANT, batch.id, at=START)
    assert await first.get_batch(TENANT, batch.id) == cancelling


async def test_of_two_claimers_one_wins(pair: tuple[Store, Store]) -> None:
    first, _ = pair
    for number in range(10):
        await first.create_batch(a_batch(f"batch_{number}"))
        claimed = await asyncio.gather(
            *(store.claim_planning("anna", lease_seconds=LEASE) for store in pair)
        )
        assert sum(one is not None for one in claimed) == 1


async def test_no_shard_is_given_twice(pair: tuple[Store, Store]) -> None:
    await planned(pair[0], shards=[("m", 1)] * 40)
    claimed = await asyncio.gather(
        *(claim_shards(pair[n % 2], f"owner-{n}", limit=3) for n in range(20))
    )
    numbers = [one.shard.plan.number for shards in claimed for one in shards]
    assert sorted(numbers) == list(range(40))


async def test_fifty_concurrent_renewals_all_count(
    pair: tuple[Store, Store], clock: ManualClock
) -> None:
    await planned(pair[0], shards=[("m", 1)] * 50)
    claimed = await claim_shards(pair[0])
    clock.turn(LEASE - 1)
    lost = await asyncio.gather(
        *(pair[n % 2].renew([one.claim], lease_seconds=LEASE) for n, one in enumerate(claimed))
    )
    assert lost == [[]] * 50
    clock.turn(LEASE - 1)
    assert await claim_shards(pair[1], "bert") == ()


async def test_commits_of_both_all_count(pair: tuple[Store, Store]) -> None:
    await planned(pair[0], shards=[("m", 2)] * 20)
    claimed = await claim_shards(pair[0])
    verdicts = await asyncio.gather(
        *(
            pair[n % 2].commit(a_commit(result(one, [0, 1]), segment=f"segment-{n}"))
            for n, one in enumerate(claimed)
        )
    )
    assert verdicts == [[Verdict.ACCEPTED]] * 20
    batch = await pair[1].get_batch(TENANT, "batch_1")
    assert (batch.counts.completed, batch.status) == (40, Status.FINALIZING)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start processes, and end them with the test, also if it fails."""
    processes: list[asyncio.subprocess.Process] = []

    async def one(script: str, *arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            script,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield one
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_processes_that_start_together_share_the_work(path: Path, start: Start) -> None:
    processes = [await start(CLAIM_EVERYTHING, str(path), f"owner-{n}") for n in range(3)]
    # They open, migrate and claim only now, all at once.
    numbers = [number for printed in await go(processes) for number in printed]
    assert sorted(numbers) == list(range(60))


async def go(processes: list[asyncio.subprocess.Process]) -> list[list[int]]:
    """Let the processes go all at once; return the numbers that each printed."""
    async with asyncio.timeout(60):
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert {process.returncode for process in processes} == {0}
    return [[int(line) for line in output.split()] for output, _ in outputs]


async def test_of_a_commit_and_a_fence_in_two_processes_one_wins(
    path: Path, clock: ManualClock, start: Start
) -> None:
    async with SqliteStore(path, clock, ThreadExecutor()) as store:
        # One shard more than is fought for: a batch without an open one gives everything away.
        await planned(store, shards=[("m", 1)] * 61)
        for number in range(60):
            owner = f"owner_{number}"
            await store.begin_writer(f"writer_{number}", batch_id="batch_1", owner=owner, at=START)
            await claim_shards(store, owner, limit=1)
        processes = [await start(COMMIT_OR_CONDEMN, str(path), verb) for verb in VERBS]
        committed, deletable = await go(processes)
        assert sorted(committed + deletable) == list(range(60))
        names = [reference.blob for reference in await store.list_references(after="r", limit=99)]
        assert names == sorted(f"results/batch_1/writer_{number}.x" for number in committed)
        batch = await store.get_batch(TENANT, "batch_1")
        assert batch.counts.completed == len(committed)


async def test_what_was_acknowledged_outlives_a_killed_process(
    path: Path, clock: ManualClock, start: Start
) -> None:
    process = await start(WRITE_FOR_EVER, str(path))
    assert process.stdout is not None
    async with asyncio.timeout(60):
        seen = [(await process.stdout.readline()).decode().strip() for _ in range(20)]
        process.kill()
        rest, _ = await process.communicate()
    # The kill may have cut the last line short.
    seen += rest.decode().rpartition("\n")[0].split()
    async with SqliteStore(path, clock, InlineExecutor()) as store:
        states = await store.get_states(seen)
    assert set(states.by_id) == set(seen)
    assert len(seen) >= 20
