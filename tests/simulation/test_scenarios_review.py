"""Stories that once went wrong: one request, one batch or one outage must not hold up the rest."""

import asyncio
from collections import Counter

import pytest

from testkit.scenarios.scenario import at_once, fails, lines, meets, now, run_scenario, scenario
from tidegate.domain.batch import Status
from tidegate.domain.errors import BlobMissing, ConnectFailed, StorageFull, StoreUnavailable
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.planning.settings import Planning
from tidegate.processor.settings import Drain, InFlightLimits, Settings
from tidegate.testing.deployment import TENANT, Deployment, model_of, ok, request_line
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream

OUTAGES = pytest.mark.parametrize("error", [StorageFull("full"), StoreUnavailable("away")])


def behind(answer: MemoryUpstream, start: int) -> Routes:
    limits = AimdSettings(start=start, min=1, max=max(start, 1))
    return Routes(default=Endpoint("upstream", answer, limits=limits))


@scenario
async def test_slow_calls_in_every_slot_make_room_for_a_new_batch(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        model = model_of(call)
        await asyncio.sleep(600.0 if b"slow" in call.body else 1.0)
        return ok(model)

    settings = Settings(limits=InFlightLimits(open_shards_max=12))
    async with world.processor(answer, settings) as processor:
        old = []
        for number in range(12):
            old.append(request_line(f"slow-{number}", f"model-{number}", content="slow"))
            old += lines(300, f"model-{number}", f"of-{number}")
        first = await world.submit(old)
        await asyncio.sleep(3.0)
        new = await world.end_of((await world.submit(lines(10, "model-0"))).id)
        assert new.counts.completed == 10
        assert now() < 60.0
        before = (await world.get(first.id)).counts.completed
        await asyncio.sleep(60.0)
        assert (await world.get(first.id)).counts.completed > before, "the old one goes on"
        processor.abort()


@scenario
async def test_lines_of_a_dead_server_do_not_keep_slots_from_another_model(
    world: Deployment,
) -> None:
    async def dying(call: Call) -> Reply:
        if now() < 3.0:
            return Reply(status=500, headers={}, body=b"{}")
        raise ConnectFailed("Connection refused.")

    settings = Settings(planning=Planning(shard_lines_max=20))
    async with world.processor({"bad": dying, "good": at_once}, settings) as processor:
        await world.submit(lines(400, "bad"))
        await asyncio.sleep(10.0)
        good = await world.end_of((await world.submit(lines(10, "good"))).id)
        assert good.counts.completed == 10
        assert now() < 60.0
        processor.abort()


@pytest.mark.parametrize(
    ("status", "seconds", "limit"),
    [(504, 60.0, 1), (403, 0.05, 1), (403, 0.05, 16), (504, 60.0, 16)],
)
@scenario
async def test_a_line_that_only_ever_gets_refused_does_not_stop_the_others(
    world: Deployment, status: int, seconds: float, limit: int
) -> None:
    tries = 0

    async def answer(call: Call) -> Reply:
        nonlocal tries
        if b"poison" in call.body:
            tries += 1
            await asyncio.sleep(seconds)
            return Reply(status=status, headers={}, body=b"{}")
        await asyncio.sleep(0.1)
        return ok()

    data = [request_line("bad", content="a poison"), *lines(2_000)]
    async with world.processor(behind(MemoryUpstream(answer), limit)):
        batch = await world.end_of((await world.submit(data)).id)
    assert (batch.status, batch.counts.completed) == (Status.COMPLETED, 2_000)
    bad = (await world.results(batch))["bad"]
    assert bad.response is not None
    assert bad.response.status_code == status
    assert tries <= 3 + 20
    assert now() < 3_600.0


def test_one_line_that_always_gets_retry_after_does_not_pin_the_limit() -> None:
    done = Counter[str]()

    async def story(world: Deployment, name: str, extra: list[bytes]) -> None:
        async def answer(call: Call) -> Reply:
            if b"poison" in call.body:
                return Reply(status=429, headers={}, body=b"{}")
            await asyncio.sleep(5.0)
            done[name] += 1
            return ok()

        async with world.processor(behind(MemoryUpstream(answer), 64)) as processor:
            await world.submit([*extra, *lines(20_000)])
            await asyncio.sleep(600.0)
            processor.abort()

    run_scenario(lambda world: story(world, "without", []))
    run_scenario(lambda world: story(world, "with", [request_line("bad", content="a poison")]))
    assert done["with"] > 0.8 * done["without"]


@OUTAGES
@pytest.mark.parametrize(
    "name", ["claim_planning", "claim_shards", "claim_finalizing", "renew", "poll", "commit"]
)
@scenario
async def test_an_outage_of_the_ledger_is_sat_out(
    world: Deployment, name: str, error: Exception
) -> None:
    async def answer(call: Call) -> Reply:
        await asyncio.sleep(0.5)
        return ok()

    fails(world.store, name, error, since=2.0, until=60.0)
    async with world.processor(answer):
        batch = await world.end_of((await world.submit(lines(300))).id)
    assert batch.counts.completed == 300


@scenario
async def test_a_disk_that_is_full_is_waited_for(world: Deployment) -> None:
    full = StorageFull("No space left on device.")
    fails(world.blobs, "append", full, since=1.0, until=40.0)
    async with world.processor(at_once):
        await asyncio.sleep(1.5)
        batch = await world.end_of((await world.submit(lines(700))).id)
    assert batch.counts.completed == 700
    assert now() >= 40.0


@OUTAGES
@scenario
async def test_an_abort_ends_one_lease_later_though_the_ledger_is_away(
    world: Deployment, error: Exception
) -> None:
    async with world.processor(at_once) as processor:
        fails(world.store, "commit", error, until=1_000.0)
        batch = await world.submit(lines(50))
        await asyncio.sleep(5.0)
        processor.stop()
        processor.abort()
    assert now() < 25.0
    await asyncio.sleep(1_000.0)
    async with world.processor(at_once):
        assert (await world.end_of(batch.id)).counts.completed == 50


@pytest.mark.parametrize("name", ["claim_shards", "claim_planning", "poll", "get_input"])
@scenario
async def test_an_abort_in_the_midst_of_a_claim_is_obeyed(world: Deployment, name: str) -> None:
    calls = 0

    async def answer(call: Call) -> Reply:
        nonlocal calls
        calls += 1
        await asyncio.sleep(1_000.0)
        return ok()

    async with world.processor(answer) as processor:
        meets(world.store, name, processor.abort)
        batch = await world.submit(lines(400))
        await asyncio.sleep(1.0)
    assert now() < 3.0
    assert calls == 0
    async with world.processor(at_once):
        await world.end_of(batch.id)
        assert now() < 5.0, "everything was handed back"


@scenario
async def test_a_stop_and_an_abort_in_the_midst_of_planning_are_obeyed(world: Deployment) -> None:
    read = world.blobs.read

    async def slowly(name: str, offset: int, length: int) -> bytes:
        await asyncio.sleep(100.0)
        return await read(name, offset, length)

    world.blobs.read = slowly  # type: ignore[method-assign]  # a slow disk
    settings = Settings(drain=Drain(stop_grace_seconds=5.0))
    async with world.processor(at_once, settings) as processor:
        await world.submit(lines(10))
        await asyncio.sleep(1.0)
        processor.stop()
        await asyncio.sleep(4.9)
        processor.abort()
        processor.stop()
    assert now() < 7.0


@scenario
async def test_shards_that_could_not_be_opened_are_not_held_indefinitely(world: Deployment) -> None:
    settings = Settings(planning=Planning(shard_lines_max=4))
    async with world.processor(at_once, settings):
        fails(world.blobs, "read", BlobMissing("gone"), since=1.0, until=20.0)
        fails(world.store, "hand_back", StoreUnavailable("away"), since=1.0, until=20.0)
        await asyncio.sleep(0.5)
        meets(world.store, "plan_batch", lambda: None)
        file_id = await world.upload(b"".join(lines(32)))
        batch = await world.create(file_id)
        ended = await world.end_of(batch.id, within_seconds=600.0)
    assert ended.counts.completed == 32


@scenario
async def test_lines_claimed_after_a_cancel_say_that_they_were_cancelled(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        await asyncio.sleep(5.0)
        return ok()

    settings = Settings(
        planning=Planning(shard_lines_max=4), limits=InFlightLimits(open_shards_max=4)
    )
    async with world.processor(answer, settings):
        batch = await world.submit(lines(40))
        await asyncio.sleep(1.0)
        # The processor learns of the cancel only by the next claim that it takes.
        fails(world.store, "get_states", StoreUnavailable("away"), until=2.0)
        await world.cancel(batch.id)
        ended = await world.end_of(batch.id)
    codes = Counter(r.error.code for r in (await world.results(ended)).values() if r.error)
    assert codes == {"batch_cancelled": ended.counts.failed}
    assert ended.counts.expired == 0


@scenario
async def test_a_batch_no_longer_says_that_it_waits_when_it_does_not(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        if now() < 30.0:
            raise ConnectFailed("Connection refused.")
        await asyncio.sleep(1.0)
        return ok()

    one = AimdSettings(start=1, min=1, max=1)
    routes = Routes(default=Endpoint("upstream", MemoryUpstream(answer), limits=one))
    fails(world.store, "note_waiting", StoreUnavailable("away"), since=30.0, until=45.0)
    async with world.processor(
        routes, Settings(limits=InFlightLimits(open_shards_max=1))
    ) as processor:
        batches = [await world.submit(lines(200, prefix=f"b{n}")) for n in range(2)]
        await asyncio.sleep(20.0)
        for batch in batches:
            assert "refused" in ((await world.get(batch.id)).waiting_for or "")
        await asyncio.sleep(80.0)
        for batch in batches:
            assert (await world.get(batch.id)).waiting_for is None
        processor.abort()


@scenario
async def test_an_error_that_no_upstream_should_raise_is_the_lines_and_slow_to_repeat(
    world: Deployment,
) -> None:
    tries = Counter[str]()

    async def answer(call: Call) -> Reply:
        if b"bug" in call.body:
            tries["bug"] += 1
            raise ValueError("a bug in the upstream")
        if b"late" in call.body:
            tries["late"] += 1
            raise TimeoutError
        await asyncio.sleep(0.1)
        return ok()

    data = [request_line("bug", content="bug"), request_line("late", content="late")]
    async with world.processor(answer):
        batch = await world.end_of((await world.submit([*data, *lines(3_000)])).id)
    assert (batch.counts.completed, batch.counts.failed) == (3_000, 2)
    assert max(tries.values()) <= 20


@scenario
async def test_a_cancel_after_the_window_has_closed_is_refused(world: Deployment) -> None:
    batch = await world.submit(lines(5), window_seconds=60.0)
    await asyncio.sleep(60.0)
    with pytest.raises(Exception, match="window has closed"):
        await world.store.cancel_batch(TENANT, batch.id, at=world.clock.now())


@pytest.mark.parametrize(("models", "code"), [(5, None), (6, "too_many_models")])
@scenario
async def test_a_file_names_a_limited_number_of_models(
    world: Deployment, models: int, code: str | None
) -> None:
    settings = Settings(planning=Planning(models_max=5))
    async with world.processor(at_once, settings):
        data = [request_line(f"{n}", f"model-{n}") for n in range(models)]
        batch = await world.end_of((await world.submit(data)).id)
    assert [problem.code for problem in batch.problems] == ([code] if code else [])
