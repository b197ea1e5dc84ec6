"""The account beside the ledger: what it must notice, and what it must not complain of."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from testkit.breaks import broken
from testkit.scenarios.collector import HOUR, collector_of, commit_of, planned, results_of
from testkit.world.account import Account
from testkit.world.api import Front, NoReply
from testkit.world.blob_account import BlobAccount
from testkit.world.broken import Broken, Complaints
from testkit.world.environment import Environment
from testkit.world.exposure import Exposure
from testkit.world.fencing import Fencing
from testkit.world.members import MemberAccount
from testkit.world.observed import WatchedBlobs, watched
from testkit.world.timeline import Timeline
from tidegate.collector.settings import Settings
from tidegate.domain.batch import Batch
from tidegate.domain.errors import StorageBroken
from tidegate.domain.ledger.values import ClaimedShard, Want
from tidegate.domain.shard import Verdict
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.stores.base import Store
from tidegate.stores.memory import MemoryStore
from tidegate.testing.deployment import Deployment, request_line
from tidegate.testing.ids import SeededIds
from tidegate.testing.loop import LoopClock, run_virtual

LEASE_SECONDS = 10.0
HOLDER = "proc"
WRITER = "writer_1"
LINES_OF_A_SHARD = 2


class Watched:
    """A ledger with its account, one batch of two shards, and a processor that holds both.

    `exposure` allows that processor two lines, which is one shard.
    """

    def __init__(self) -> None:
        complaints, clock = Complaints(Timeline()), LoopClock(asyncio.get_running_loop())
        self.ledger = MemoryStore(clock)
        self.blobs = WatchedBlobs(complaints, appends=True)
        holdings = BlobAccount(self.ledger, self.blobs, clock)
        self.blobs.holdings = holdings
        self.account = Account(self.ledger, holdings, clock)
        self.store: Store = watched(
            self.ledger, complaints, self.account, Fencing(self.account, clock), holdings
        )
        ids = SeededIds(random.Random(0))
        self.deployment = Deployment(self.store, self.blobs, MemoryPubSub(), clock, ids)
        self.collector = collector_of(self.deployment, Settings(upload_seconds_max=HOUR))
        self.exposure = Exposure(self.account, HOLDER, LINES_OF_A_SHARD)
        self.batch: Batch | None = None

    async def begin(self) -> tuple[Batch, list[ClaimedShard]]:
        """Plan the batch and claim its shards, under whose results a writer's name stands."""
        lines = [request_line(f"line-{number}") for number in (1, 2, 3, 4)]
        batch = await planned(self.deployment, await self.deployment.submit(lines), shards=2)
        self.batch = batch
        shards = await self.claim(batch)
        await self.begin_writer(WRITER)
        return batch, shards

    async def claim(self, batch: Batch) -> list[ClaimedShard]:
        """Claim every shard that nobody holds."""
        claimed = await self.store.claim_shards(
            HOLDER, [Want(batch_id=batch.id, model="m", limit=2)], lease_seconds=LEASE_SECONDS
        )
        return [held for found in claimed for held in found.shards]

    async def begin_writer(self, writer: str) -> None:
        assert self.batch is not None
        at = self.deployment.clock.now()
        await self.store.begin_writer(writer, batch_id=self.batch.id, owner=HOLDER, at=at)

    def answer(self, *numbers: int) -> None:
        """Send these lines, which come back with their results."""
        assert self.batch is not None
        for number in numbers:
            sent = self.exposure.send((self.batch.id, f"line-{number}"), calm_since=None, now=0.0)
            self.exposure.land(sent, final=True)


def told(story: Callable[[Watched], Awaitable[None]]) -> None:
    async def tell() -> None:
        world = Watched()
        async with world.ledger:
            await story(world)

    run_virtual(tell())


async def write_unseen(world: Watched, label: str) -> str:
    """Let the writer leave bytes that no commit ever named."""
    assert world.batch is not None
    name = f"results/{world.batch.id}/{WRITER}.{label}"
    await world.blobs.put(name, b"{}\n")
    return name


async def failed(world: Watched, held: ClaimedShard, writer: str) -> list[Verdict]:
    """Commit errors for both lines of a shard: a success would have to have used tokens."""
    assert world.batch is not None
    return await results_of(world.deployment, world.batch, held, writer, bad=True)


async def fence_and_list_deletable(world: Watched, name: str) -> None:
    assert await world.store.fence_and_list_deletable([name], idle_seconds=0) == [name]


def test_more_lines_than_the_limits_allow_are_noticed() -> None:
    async def story(world: Watched) -> None:
        await world.begin()
        world.answer(1, 2)
        with pytest.raises(Broken, match="would repeat 3 lines if it died now"):
            world.answer(3)

    told(story)


def test_results_that_a_collector_has_fenced_off_do_not_count_any_more() -> None:
    """They run again whether their holder dies or not, though nobody has claimed them yet."""

    async def story(world: Watched) -> None:
        batch, (first, second) = await world.begin()
        name = await write_unseen(world, "seg_1")
        await world.store.hand_back([second.claim])
        world.answer(1, 2)
        await asyncio.sleep(LEASE_SECONDS)
        await fence_and_list_deletable(world, name)
        right = world.account.right(first.claim.unit)
        assert (right.epoch, right.fenced) == (1, True)
        assert not world.account.right(second.claim.unit).fenced
        assert [held.shard.plan.number for held in await world.claim(batch)] == [0, 1]
        world.answer(3, 4)

    told(story)


def test_results_whose_commit_was_refused_do_not_count_any_more() -> None:
    """A blob has vanished under a writer: it is fenced, and what it adds to other shards falls."""

    async def story(world: Watched) -> None:
        batch, (first, second) = await world.begin()
        assert await failed(world, first, WRITER) == [Verdict.ACCEPTED]
        await world.blobs.vanish(f"results/{batch.id}/{WRITER}.errors")
        world.answer(3, 4)
        await world.collector.collect()
        assert await failed(world, second, WRITER) == [Verdict.STALE]
        right = world.account.right(second.claim.unit)
        assert (right.refused, right.fenced) == (True, False)
        assert [held.shard.plan.number for held in await world.claim(batch)] == [0]
        world.answer(1, 2)

    told(story)


def test_a_fenced_writer_may_be_tidied_up_after_while_its_owner_works_on() -> None:
    async def story(world: Watched) -> None:
        batch, (first, second) = await world.begin()
        assert await failed(world, first, WRITER) == [Verdict.ACCEPTED]
        await world.blobs.vanish(f"results/{batch.id}/{WRITER}.errors")
        name = await write_unseen(world, "seg_1")
        await world.collector.collect()
        await fence_and_list_deletable(world, name)
        assert not world.account.right(second.claim.unit).fenced
        await world.begin_writer("writer_2")
        assert await failed(world, second, "writer_2") == [Verdict.ACCEPTED]

    told(story)


def test_a_repeated_segment_may_be_stale_once_its_results_were_lost_and_only_then() -> None:
    async def story(world: Watched) -> None:
        batch, (first, _) = await world.begin()
        commit = await commit_of(world.deployment, batch, first, WRITER, bad=True)
        for _repeat in range(2):
            assert await world.store.commit(commit) == [Verdict.ACCEPTED]
        with broken("08-segment"), pytest.raises(Broken, match="and then ended when it was"):
            await world.store.commit(commit)
        await world.blobs.vanish(f"results/{batch.id}/{WRITER}.errors")
        await world.collector.collect()
        assert await world.store.commit(commit) == [Verdict.STALE]

    told(story)


def test_a_collector_that_fences_a_claim_that_lives_is_noticed() -> None:
    async def story(world: Watched) -> None:
        await world.begin()
        name = await write_unseen(world, "seg_1")
        assert await world.store.fence_and_list_deletable([name], idle_seconds=0) == []
        with broken("18-fence"), pytest.raises(Broken, match="has not expired"):
            await fence_and_list_deletable(world, name)

    told(story)


def test_a_planner_whose_plan_was_let_go_has_no_right_any_more() -> None:
    async def story(world: Watched) -> None:
        batch = await world.deployment.submit([request_line("line-1")])
        held = await world.store.claim_planning(HOLDER, lease_seconds=LEASE_SECONDS)
        assert held is not None
        name = f"plans/{batch.id}/{held.claim.epoch}"
        await world.blobs.put(name, b"half a plan")
        with broken("18-fence"), pytest.raises(Broken, match="has not expired"):
            await fence_and_list_deletable(world, name)
        await asyncio.sleep(LEASE_SECONDS)
        await fence_and_list_deletable(world, name)
        assert world.account.right(held.claim.unit).fenced

    told(story)


def test_members_change_when_one_joins_leaves_or_misses_its_lease() -> None:
    async def story() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        living = MemberAccount(clock)
        ledger = MemoryStore(clock)
        store = watched(ledger, Complaints(Timeline()), living)
        async with ledger:
            await asyncio.sleep(1.0)
            await store.renew_membership("a", lease_seconds=4.0)
            assert living.same_since == 1.0
            await asyncio.sleep(1.0)
            await store.renew_membership("b", lease_seconds=LEASE_SECONDS)
            await store.renew_membership("a", lease_seconds=LEASE_SECONDS)
            assert living.same_since == 2.0
            await asyncio.sleep(3.0)
            await store.leave("b")
            await store.leave("b")
            assert living.same_since == 5.0
            assert await store.list_members() == ("a",)
            await asyncio.sleep(LEASE_SECONDS)
            assert await store.list_members() == ()
            assert living.same_since == 2.0 + LEASE_SECONDS
            await store.renew_membership("a", lease_seconds=LEASE_SECONDS)
            assert living.same_since == 5.0 + LEASE_SECONDS

    run_virtual(story())


def test_calls_to_a_server_that_ends_with_a_broken_disk_get_no_reply() -> None:
    async def story() -> None:
        front = Front(Environment(0, MemoryStore))
        heard: list[str] = []

        async def ask(what: str, request: Callable[[object], Awaitable[None]]) -> None:
            with pytest.raises(NoReply):
                await front.ask(what, request)
            heard.append(what)

        async def wait(_app: object) -> None:
            await asyncio.get_running_loop().create_future()

        async def break_disk(_app: object) -> None:
            raise StorageBroken("The flush failed.")

        async with asyncio.timeout(60.0), asyncio.TaskGroup() as group:
            # Enough calls that each of the two servers gets both kinds.
            for number in range(10):
                group.create_task(ask("wait", wait), name=f"waiting {number}")
            await asyncio.sleep(0.0)
            for number in range(10):
                group.create_task(ask("break", break_disk), name=f"breaking {number}")
        assert sorted(heard) == ["break"] * 10 + ["wait"] * 10

    run_virtual(story())
