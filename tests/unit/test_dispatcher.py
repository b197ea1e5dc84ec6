"""A dispatcher by itself: what one turn of the loop does, and what it does not do any more."""

import asyncio
import dataclasses

import pytest

from testkit.scenarios.dispatching import REPLY, DispatcherBench, ManualUpstream, Running, turn
from tidegate.domain.errors import ConnectFailed
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.processor.dispatch.dispatcher import (
    BYTES_PER_TURN,
    SETTLED_PER_TURN,
    STARTS_PER_TURN,
    STARVED_SECONDS,
    STARVED_WAIT_FACTOR,
)
from tidegate.processor.dispatch.open_shard import OpenShardState
from tidegate.processor.settings import InFlightLimits
from tidegate.testing.loop import in_virtual_time, run_virtual
from tidegate.upstreams.base import Reply, StaleConnection


@in_virtual_time
async def test_one_turn_starts_and_takes_in_no_more_than_its_bounds() -> None:
    bench, doors = DispatcherBench(), ManualUpstream()
    bench.open(doors, [b"{}"] * 1_000)
    async with Running(bench):
        await turn()
        assert len(doors.begun) == STARTS_PER_TURN
        for _ in range(20):
            await turn()
        assert len(doors.begun) == 1_000
        doors.answer_all(REPLY)
        for _ in range(20):
            await turn()
    assert bench.observer.turns == [SETTLED_PER_TURN] * 10
    assert bench.dispatcher.in_flight == 0


@pytest.mark.parametrize(("extra", "started"), [(0, 4), (-1, 5)])
@in_virtual_time
async def test_one_turn_starts_a_bounded_number_of_bytes(extra: int, started: int) -> None:
    bench, doors = DispatcherBench(), ManualUpstream()
    bench.open(doors, [b"x" * (BYTES_PER_TURN // 4 + extra)] * 12)
    async with Running(bench):
        await turn()
        assert len(doors.begun) == started
        for _ in range(4):
            await turn()
        assert len(doors.begun) == 12


@pytest.mark.parametrize(("extra", "landed"), [(0, 4), (-1, 5)])
@in_virtual_time
async def test_one_turn_takes_in_a_bounded_number_of_bytes(extra: int, landed: int) -> None:
    bench, doors = DispatcherBench(), ManualUpstream()
    _, shard = bench.open(doors, [b""] * 12)
    async with Running(bench):
        for _ in range(3):
            await turn()
        doors.answer_all(Reply(status=200, headers={}, body=b" " * (BYTES_PER_TURN // 4 + extra)))
        for _ in range(5):
            await turn()
    assert bench.observer.turns[0] == landed
    assert sum(bench.observer.turns) == 12
    assert not shard.in_flight


@in_virtual_time
async def test_a_limit_of_one_grows_when_lines_are_served() -> None:
    bench, doors = DispatcherBench(), ManualUpstream()
    _, shard = bench.open(doors, [b"{}"] * 100, limits=AimdSettings(start=1, max=100))
    assert shard.endpoint is not None
    async with Running(bench):
        rounds = 0
        while shard.undecided:
            await turn()
            doors.answer_all(REPLY)
            rounds += 1
        assert rounds < 40, "one at a time they would take a hundred rounds"
    assert shard.endpoint.limiter.limit > 8


@in_virtual_time
async def test_lines_too_large_for_the_room_that_others_leave_get_their_turn_in_time() -> None:
    limits = InFlightLimits(
        in_flight_max=10_000, in_flight_bytes_max=4 * 2**20, uncommitted_lines_max=100_000
    )
    bench, small, large = DispatcherBench(limits), ManualUpstream(), ManualUpstream()
    _, others = bench.open(small, [b"{}"] * 20_000, model="small")
    started: list[float] = []

    async def go_on() -> None:
        # Some end all the time, in whose place other small ones fit.
        await asyncio.sleep(0.1)
        small.answer_some(20, REPLY)
        budget, run = bench.open_batches.budget, bench.run
        budget.bytes_held -= sum(len(entry.line) for entry in run.results)
        budget.lines_held -= len(run.results)
        run.results.clear()
        if large.begun:
            started.append(asyncio.get_running_loop().time())
            large.answer_all(REPLY)

    async with Running(bench):
        for _ in range(20):
            await go_on()
        waits: list[float] = []
        for _ in range(2):  # A round of lines that are too large.
            opened = asyncio.get_running_loop().time()
            _, shard = bench.open(large, [b"x" * 3 * 2**20], model="large")
            while shard.undecided:
                await go_on()
                assert others.fresh, "it waits until all others are gone"
            waits.append(started[-1] - opened)
            for _ in range(20):
                await go_on()
    room_took = waits[0] - STARVED_SECONDS
    assert room_took > 0.0, "all that fits goes before"
    assert waits[1] >= STARVED_WAIT_FACTOR * room_took - 1.0, "others lose little to large ones"


@in_virtual_time
async def test_room_kept_for_a_model_without_more_lines_is_given_to_others_at_once() -> None:
    bench, few, many = (
        DispatcherBench(InFlightLimits(in_flight_max=8)),
        ManualUpstream(),
        ManualUpstream(),
    )
    bench.open(few, [b"{}"] * 3, model="few")
    bench.open(many, [b"{}"] * 50, model="many")
    async with Running(bench):
        for _ in range(3):
            await turn()
        assert (len(few.begun), len(many.begun)) == (3, 5)


@pytest.mark.parametrize("over", ["deadline", "cancelled", "returning"])
@in_virtual_time
async def test_what_stayed_unanswered_is_not_sent_again_once_nothing_may_be_sent(over: str) -> None:
    bench, doors = DispatcherBench(), ManualUpstream()
    run, shard = bench.open(doors, [b"{}"] * 3)
    async with Running(bench):
        await turn()
        assert len(doors.begun) == 3
        match over:
            case "deadline":
                run.ends_at = asyncio.get_running_loop().time()
            case "cancelled":
                shard.state = OpenShardState.ENDING
            case _:
                shard.state = OpenShardState.RETURNING
        doors.answer_all(StaleConnection("Closed."))
        for _ in range(3):
            await turn()
        assert doors.afresh == 0
        assert not shard.in_flight


@in_virtual_time
async def test_nothing_is_sent_again_while_a_dispatcher_ends() -> None:
    bench, doors = DispatcherBench(), ManualUpstream()
    doors.gate = asyncio.Event()
    bench.open(doors, [b"{}"] * 3)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bench.dispatcher.run(), name="dispatcher")
        await turn()
        await turn()
        doors.begun.pop().on_reply(StaleConnection("Closed."))
        await turn()
        task.cancel()
        await turn()
        assert not task.done(), "one call takes its time to end"
        doors.answer_all(StaleConnection("Closed."))
        doors.gate.set()
    assert doors.afresh == 1


@in_virtual_time
async def test_a_claim_that_was_granted_again_ends_the_lines_of_the_earlier_one() -> None:
    bench, doors = DispatcherBench(), ManualUpstream()
    _, shard = bench.open(doors, [b"{}"] * 3 * STARTS_PER_TURN)
    async with Running(bench):
        await turn()
        assert len(doors.begun) == STARTS_PER_TURN
        bench.open_batches.supersede(dataclasses.replace(shard.claim, epoch=2))
        for _ in range(5):
            await turn()
        assert doors.begun == []
    assert shard.state is OpenShardState.LOST


@in_virtual_time
async def test_shards_of_one_model_may_know_it_by_different_endpoints() -> None:
    # A gateway with many models forgets those that were not served lately.
    bench, doors = DispatcherBench(), ManualUpstream()
    _, one = bench.open(doors, [b"{}"] * 3)
    _, other = bench.open(doors, [b"{}"] * 3)
    assert one.endpoint is not other.endpoint
    async with Running(bench):
        await turn()
        assert len(doors.begun) == 6
        doors.answer_all(REPLY)
        await turn()
    assert not one.undecided
    assert not other.undecided


@in_virtual_time
async def test_what_stayed_unanswered_is_sent_once_more() -> None:
    bench, doors = DispatcherBench(), ManualUpstream()
    run, _ = bench.open(doors, [b"{}"] * 3)
    async with Running(bench):
        await turn()
        doors.answer_all(StaleConnection("Closed."))
        for _ in range(5):
            await turn()
    assert (doors.afresh, len(run.results), run.in_flight) == (3, 3, 0)


@in_virtual_time
async def test_a_call_that_could_not_begin_for_a_fault_of_the_server_is_no_crash_of_ours() -> None:
    bench, doors = DispatcherBench(), ManualUpstream()
    doors.fault = ConnectFailed("Nobody there.")
    _, shard = bench.open(doors, [b"{}"])
    async with Running(bench):
        for _ in range(3):
            await turn()
        assert shard.endpoint is not None
        assert shard.endpoint.is_paused(asyncio.get_running_loop().time())
    assert (bench.observer.outcomes, bench.observer.crashes) == (["endpoint_error"], 0)


def test_a_mistake_of_ours_at_a_turn_ends_the_dispatcher() -> None:
    async def story() -> None:
        bench, doors = DispatcherBench(), ManualUpstream()
        _, shard = bench.open(doors, [b"{}"])
        async with Running(bench):
            await turn()
            doors.answer_all(REPLY)
            shard.in_flight.clear()
            for _ in range(4):
                await turn()

    with pytest.raises(ExceptionGroup) as caught:
        run_virtual(story())
    assert caught.value.subgroup(KeyError) is not None
