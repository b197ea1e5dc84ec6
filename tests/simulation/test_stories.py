"""What a batch does when the world is difficult, told one story at a time, in virtual time."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from itertools import pairwise

import pytest

from tidegate.domain.batch import Status
from tidegate.domain.errors import Conflict, ConnectFailed, ReplyBroken, ReplyTooLarge, TimedOut
from tidegate.processor.endpoints import Endpoint, Routes
from tidegate.processor.settings import Claims, Ends, Planning, Settings, UnknownModel, Valves
from tidegate.runtime.limiter import AimdSettings
from tidegate.testing.deployment import TENANT, Deployment, model_of, ok, request_line
from tidegate.testing.loop import run_virtual
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream

Story = Callable[[Deployment], Coroutine[None, None, None]]


def told(story: Story) -> None:
    async def tell() -> None:
        await story(Deployment.make())

    run_virtual(tell())


def now() -> float:
    return asyncio.get_running_loop().time()


def lines(count: int, model: str = "m", prefix: str = "line") -> list[bytes]:
    return [request_line(f"{prefix}-{number}", model) for number in range(count)]


async def at_once(call: Call) -> Reply:
    return ok(model_of(call))


def test_a_batch_runs_to_its_end() -> None:
    async def story(world: Deployment) -> None:
        async with world.processor(at_once):
            batch = await world.end_of((await world.submit(lines(1_234))).id)
        assert batch.status is Status.COMPLETED
        assert (batch.counts.total, batch.counts.completed) == (1_234, 1_234)
        assert batch.usage.total_tokens == 2 * 1_234
        assert batch.models == ("m",)
        assert len(await world.results(batch)) == 1_234
        assert now() < 5.0, "signals and commits should make this quick"

    told(story)


def test_a_small_batch_ends_at_once() -> None:
    async def story(world: Deployment) -> None:
        async with world.processor(at_once):
            await world.end_of((await world.submit(lines(10))).id)
            assert now() < 0.3

    told(story)


def test_a_slow_model_does_not_hold_up_a_fast_one() -> None:
    """Two models in one file behind one gateway, one of them 50 times slower."""

    async def story(world: Deployment) -> None:
        ended: dict[str, float] = {}

        async def answer(call: Call) -> Reply:
            model = model_of(call)
            await asyncio.sleep(0.1 if model == "fast" else 5.0)
            ended[model] = now()
            return ok(model)

        async with world.processor(answer):
            both = await world.submit(lines(400, "slow", "s") + lines(400, "fast", "f"))
            await world.end_of(both.id)
        assert ended["fast"] < ended["slow"] / 10
        assert ended["fast"] < 400 * 0.1 / 16 * 2

    told(story)


def test_a_slow_model_leaves_the_global_limit_to_others() -> None:
    async def story(world: Deployment) -> None:
        ended: dict[str, float] = {}

        async def answer(call: Call) -> Reply:
            model = model_of(call)
            await asyncio.sleep(0.1 if model == "fast" else 60.0)
            ended[model] = now()
            return ok(model)

        wide = AimdSettings(start=64, min=1, max=64)
        routes = Routes(default=Endpoint("gateway", MemoryUpstream(answer), limits=wide))
        settings = Settings(valves=Valves(in_flight_max=16))
        async with world.processor(routes, settings):
            slow = await world.submit(lines(200, "slow", "s"))
            await asyncio.sleep(1.0)
            fast = await world.submit(lines(200, "fast", "f"))
            await world.end_of(fast.id)
            # The slow model held all 16 slots; the fast one gets its half as they fall free.
            assert ended["fast"] < 65.0
            await world.end_of(slow.id)

    told(story)


def test_a_small_batch_passes_a_large_one() -> None:
    """50 lines behind 20,000 take at most twice their time alone, plus 2 s."""

    async def answer(call: Call) -> Reply:
        await asyncio.sleep(1.0)
        return ok(model_of(call))

    times: dict[str, float] = {}

    async def alone(world: Deployment) -> None:
        async with world.processor(answer):
            await world.end_of((await world.submit(lines(50))).id)
            times["alone"] = now()

    async def behind(world: Deployment) -> None:
        async with world.processor(answer):
            large = await world.submit(lines(20_000))
            await asyncio.sleep(20.0)
            started = now()
            await world.end_of((await world.submit(lines(50))).id)
            times["behind"] = now() - started
            assert (await world.get(large.id)).status is Status.IN_PROGRESS
            await world.cancel(large.id)
            await world.end_of(large.id)

    told(alone)
    told(behind)
    assert times["behind"] <= 2 * times["alone"] + 2.0, times


def test_with_every_slot_taken_a_new_batch_still_gets_its_turn() -> None:
    async def answer(call: Call) -> Reply:
        await asyncio.sleep(1.0)
        return ok(model_of(call))

    async def story(world: Deployment) -> None:
        settings = Settings(valves=Valves(open_shards_max=2, turn_seconds=5.0))
        async with world.processor(answer, settings):
            large = [await world.submit(lines(3_000, prefix=f"b{n}")) for n in range(2)]
            await asyncio.sleep(3.0)
            small = await world.end_of((await world.submit(lines(20))).id, within_seconds=30.0)
            assert small.counts.completed == 20
            for batch in large:
                await world.cancel(batch.id)
                await world.end_of(batch.id)

    told(story)


def test_a_bad_key_pauses_and_says_so_and_costs_no_attempt() -> None:
    async def story(world: Deployment) -> None:
        calls = 0
        refused_until = 3_600.0

        async def answer(call: Call) -> Reply:
            nonlocal calls
            calls += 1
            if now() < refused_until:
                return Reply(status=401, headers={}, body=b'{"error":{"message":"no such key"}}')
            return ok()

        async with world.processor(answer):
            batch = await world.submit(lines(100))
            await asyncio.sleep(120.0)
            waiting = (await world.get(batch.id)).waiting_for
            assert waiting is not None
            assert "401" in waiting
            assert "api_key" in waiting
            ended = await world.end_of(batch.id)
        assert ended.counts.completed == 100
        assert ended.waiting_for is None
        # The whole crowd goes once, then one at a time with back-off up to 10 s.
        assert calls < 16 + 100 + 3_600 / 5

    told(story)


def test_a_bad_key_to_the_end_expires_the_batch() -> None:
    async def story(world: Deployment) -> None:
        async def answer(call: Call) -> Reply:
            return Reply(status=401, headers={}, body=b"{}")

        async with world.processor(answer):
            batch = await world.end_of((await world.submit(lines(30), window_seconds=600)).id)
        assert batch.status is Status.EXPIRED
        assert (batch.counts.total, batch.counts.failed, batch.counts.expired) == (30, 30, 30)
        codes = Counter(r.error.code for r in (await world.results(batch)).values() if r.error)
        assert codes == {"batch_expired": 30}
        assert now() < 602.0

    told(story)


@pytest.mark.parametrize("status", [503, 502, 504, 429])
def test_a_model_that_is_still_loading_is_waited_for(status: int) -> None:
    async def story(world: Deployment) -> None:
        async def answer(call: Call) -> Reply:
            if now() < 30.0:
                return Reply(status=status, headers={}, body=b"loading")
            await asyncio.sleep(0.1)
            return ok()

        async with world.processor(answer):
            batch = await world.end_of((await world.submit(lines(300))).id)
        assert batch.counts.completed == 300
        assert now() < 80.0

    told(story)


def test_a_model_unknown_while_starting_is_waited_for_and_later_a_result() -> None:
    async def story(world: Deployment) -> None:
        unknown = Reply(status=404, headers={}, body=b'{"error":{"message":"no model m"}}')

        async def answer(call: Call) -> Reply:
            return unknown if now() < 60.0 else ok()

        async with world.processor(answer):
            batch = await world.end_of((await world.submit(lines(20))).id)
            assert batch.counts.completed == 20

        async def never(call: Call) -> Reply:
            return unknown

        async with world.processor(never):
            batch = await world.end_of((await world.submit(lines(20))).id, within_seconds=600)
        assert (batch.status, batch.counts.failed) == (Status.COMPLETED, 20)
        result = (await world.results(batch))["line-0"]
        assert result.response is not None
        assert result.response.status_code == 404

    told(story)


def test_a_line_that_always_fails_is_tried_five_times_and_the_others_go_on() -> None:
    async def story(world: Deployment) -> None:
        tries: Counter[str] = Counter()

        async def answer(call: Call) -> Reply:
            tries[call.headers["x-request-id"]] += 1
            await asyncio.sleep(0.1)
            if b"poison" in call.body:
                return Reply(status=500, headers={}, body=b'{"error":{"message":"boom"}}')
            return ok()

        async with world.processor(answer):
            batch = await world.end_of(
                (await world.submit([*lines(50), request_line("bad", content="poison")])).id
            )
        assert (batch.status, batch.counts.completed, batch.counts.failed) == (
            Status.COMPLETED,
            50,
            1,
        )
        bad = (await world.results(batch))["bad"]
        assert bad.error is None
        assert bad.response is not None
        assert (bad.response.status_code, tries[bad.id]) == (500, 5)
        assert sum(tries.values()) == 55
        assert bytes(bad.response.body) == b'{"error":{"message":"boom"}}'

    told(story)


def test_a_server_that_dies_and_comes_back_costs_no_attempts() -> None:
    async def story(world: Deployment) -> None:
        async def answer(call: Call) -> Reply:
            started = now()
            await asyncio.sleep(1.0)
            if started < 5.0 <= now():
                raise ReplyBroken("The connection was reset.")
            if 5.0 <= now() < 300.0:
                raise ConnectFailed("Connection refused.")
            return ok()

        async with world.processor(answer):
            batch = await world.submit(lines(200))
            await asyncio.sleep(60.0)
            assert "refused" in ((await world.get(batch.id)).waiting_for or "")
            batch = await world.end_of(batch.id)
        assert batch.counts.completed == 200

    told(story)


def test_a_reply_that_never_comes_is_the_lines_fault_while_others_are_served() -> None:
    async def story(world: Deployment) -> None:
        tries = 0

        async def answer(call: Call) -> Reply:
            nonlocal tries
            if b"hang" in call.body:
                tries += 1
                await asyncio.sleep(10.0)
                raise TimedOut("No reply within 10 s.", phase="total")
            await asyncio.sleep(1.0)
            return ok()

        async with world.processor(answer):
            batch = await world.end_of(
                (await world.submit([request_line("bad", content="hang"), *lines(3_000)])).id
            )
        bad = (await world.results(batch))["bad"]
        assert bad.response is None
        assert bad.error is not None
        assert (bad.error.code, tries) == ("upstream_timeout", 5)

    told(story)


def test_a_line_that_only_ever_breaks_the_connection_ends_too() -> None:
    async def story(world: Deployment) -> None:
        async def answer(call: Call) -> Reply:
            raise ReplyBroken("The server closed the connection in mid-reply.")

        async with world.processor(answer):
            batch = await world.end_of((await world.submit(lines(1))).id, within_seconds=3_600)
        assert batch.counts.failed == 1

    told(story)


@pytest.mark.parametrize(
    ("reply", "code"),
    [(Reply(status=200, headers={}, body=b"<html>"), "invalid_reply"), (None, "reply_too_large")],
)
def test_a_reply_that_cannot_be_kept_is_the_lines_error(reply: Reply | None, code: str) -> None:
    async def story(world: Deployment) -> None:
        async def answer(call: Call) -> Reply:
            if reply is None:
                raise ReplyTooLarge("The reply is larger than 32 MiB.")
            return reply

        async with world.processor(answer):
            batch = await world.end_of((await world.submit(lines(2))).id)
        found = (await world.results(batch))["line-1"]
        assert found.error is not None
        assert (found.error.code, found.response) == (code, None)

    told(story)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_other_client_errors_are_results_at_once(status: int) -> None:
    async def story(world: Deployment) -> None:
        calls = 0

        async def answer(call: Call) -> Reply:
            nonlocal calls
            calls += 1
            return Reply(status=status, headers={"x-request-id": "theirs"}, body=b"plain text")

        async with world.processor(answer):
            batch = await world.end_of((await world.submit(lines(3))).id)
        assert (batch.status, batch.counts.failed, calls) == (Status.COMPLETED, 3, 3)
        found = (await world.results(batch))["line-0"]
        assert found.response is not None
        assert (found.response.status_code, found.response.request_id) == (status, "theirs")
        assert b"plain text" in bytes(found.response.body)

    told(story)


def test_a_retry_after_is_obeyed() -> None:
    async def story(world: Deployment) -> None:
        calls: list[float] = []

        async def answer(call: Call) -> Reply:
            calls.append(now())
            if len(calls) == 1:
                return Reply(status=429, headers={"retry-after": "20"}, body=b"{}")
            return ok()

        async with world.processor(answer):
            await world.end_of((await world.submit(lines(1))).id)
        assert calls[1] - calls[0] >= 20.0

    told(story)


def test_an_unserved_model_rejects_its_lines_and_the_others_run() -> None:
    async def story(world: Deployment) -> None:
        async with world.processor({"m": at_once}):
            batch = await world.end_of(
                (await world.submit([*lines(5), request_line("x", "unheard-of")])).id
            )
        assert (batch.counts.completed, batch.counts.failed) == (5, 1)
        found = (await world.results(batch))["x"]
        assert found.error is not None
        assert found.error.code == "model_not_found"

    told(story)


def test_an_unserved_model_can_reject_the_batch() -> None:
    async def story(world: Deployment) -> None:
        settings = Settings(planning=Planning(unknown_model=UnknownModel.REJECT_BATCH))
        async with world.processor({"m": at_once}, settings):
            batch = await world.end_of(
                (await world.submit([*lines(5), request_line("x", "unheard-of")])).id
            )
        assert (batch.status, batch.counts.total) == (Status.FAILED, 0)
        assert [(p.code, p.line, p.param) for p in batch.problems] == [
            ("model_not_found", 6, "body.model")
        ]

    told(story)


def test_cancel_keeps_what_came_back_and_ends_the_rest() -> None:
    async def story(world: Deployment) -> None:
        async def answer(call: Call) -> Reply:
            await asyncio.sleep(2.0)
            return ok()

        async with world.processor(answer):
            batch = await world.submit(lines(1_200))
            await asyncio.sleep(5.0)
            assert (await world.cancel(batch.id)).status is Status.CANCELLING
            asked = now()
            ended = await world.end_of(batch.id)
            assert now() - asked < 4.0
        assert ended.status is Status.CANCELLED
        assert ended.counts.completed + ended.counts.failed == 1_200
        # Two whole windows had landed, and the third was in flight and may land.
        assert ended.counts.completed >= 3 * 16
        found = await world.results(ended)
        assert len(found) == 1_200
        codes = Counter(line.error.code for line in found.values() if line.error)
        assert codes == {"batch_cancelled": ended.counts.failed}

    told(story)


def test_a_line_that_does_not_land_in_time_is_cut_at_cancel() -> None:
    async def story(world: Deployment) -> None:
        async def answer(call: Call) -> Reply:
            await asyncio.sleep(10_000.0)
            return ok()

        async with world.processor(answer, Settings(ends=Ends(drain_seconds=30.0))):
            batch = await world.submit(lines(40))
            await asyncio.sleep(1.0)
            await world.cancel(batch.id)
            ended = await world.end_of(batch.id)
            assert 30.0 <= now() < 33.0
        assert (ended.status, ended.counts.failed) == (Status.CANCELLED, 40)

    told(story)


def test_cancel_before_planning_has_no_lines_and_no_files() -> None:
    async def story(world: Deployment) -> None:
        batch = await world.submit(lines(10))
        await world.cancel(batch.id)
        async with world.processor(at_once):
            ended = await world.end_of(batch.id)
        assert (ended.status, ended.counts.total) == (Status.CANCELLED, 0)
        assert (ended.output_bytes, ended.error_bytes) == (0, 0)

    told(story)


def test_cancel_of_what_has_ended_is_refused_and_of_what_is_cancelled_is_not() -> None:
    async def story(world: Deployment) -> None:
        async with world.processor(at_once):
            done = await world.end_of((await world.submit(lines(1))).id)
            with pytest.raises(Conflict, match="Cannot cancel a batch with status 'completed'"):
                await world.cancel(done.id)
        other = await world.submit(lines(1))
        await world.cancel(other.id)
        async with world.processor(at_once):
            await world.end_of(other.id)
        assert (await world.cancel(other.id)).status is Status.CANCELLED

    told(story)


def test_the_window_closes_on_a_running_batch() -> None:
    async def story(world: Deployment) -> None:
        async def answer(call: Call) -> Reply:
            await asyncio.sleep(10.0)
            return ok()

        async with world.processor(answer):
            batch = await world.end_of((await world.submit(lines(600), window_seconds=60)).id)
        assert batch.status is Status.EXPIRED
        assert batch.counts.completed >= 16 * 6
        assert batch.counts.expired == batch.counts.failed == 600 - batch.counts.completed
        assert now() < 75.0

    told(story)


def test_a_window_that_closes_before_planning_leaves_nothing() -> None:
    async def story(world: Deployment) -> None:
        batch = await world.submit(lines(3), window_seconds=60)
        await asyncio.sleep(61.0)
        async with world.processor(at_once):
            ended = await world.end_of(batch.id)
        assert (ended.status, ended.counts.total) == (Status.EXPIRED, 0)

    told(story)


def test_every_bad_line_is_named_up_to_the_bound() -> None:
    async def story(world: Deployment) -> None:
        bad = [b"nonsense\n", b"\n", *lines(1), *lines(1), *[b"{}\n"] * 5]
        settings = Settings(planning=Planning(errors_max=4))
        async with world.processor(at_once, settings):
            batch = await world.end_of((await world.submit(bad)).id)
        assert (batch.status, batch.counts.total) == (Status.FAILED, 0)
        assert [(p.line, p.code) for p in batch.problems] == [
            (1, "invalid_json_line"),
            (4, "duplicate_custom_id"),
            (5, "missing_required_parameter"),
            (6, "missing_required_parameter"),
            (None, "too_many_errors"),
        ]
        assert "7 problems" in batch.problems[-1].message

    told(story)


@pytest.mark.parametrize(
    ("count", "lines_max", "code"),
    [(0, 10, "empty_file"), (10, 10, None), (11, 10, "too_many_tasks")],
)
def test_a_file_has_at_least_one_line_and_at_most_the_bound(
    count: int, lines_max: int, code: str | None
) -> None:
    async def story(world: Deployment) -> None:
        settings = Settings(planning=Planning(lines_max=lines_max))
        async with world.processor(at_once, settings):
            batch = await world.end_of((await world.submit([b"\n", *lines(count)])).id)
        assert [problem.code for problem in batch.problems] == ([code] if code else [])

    told(story)


def test_an_input_that_does_not_exist_fails_the_batch() -> None:
    async def story(world: Deployment) -> None:
        batch = await world.create("file-nowhere")
        async with world.processor(at_once):
            ended = await world.end_of(batch.id)
        assert ended.status is Status.FAILED
        assert (ended.problems[0].code, ended.problems[0].param) == ("invalid_request", "file_id")

    told(story)


def test_deleting_the_input_does_not_disturb_the_batch() -> None:
    async def story(world: Deployment) -> None:
        file_id = await world.upload(b"".join(lines(5)))
        batch = await world.create(file_id)
        await world.store.delete_file(TENANT, file_id)
        async with world.processor(at_once):
            assert (await world.end_of(batch.id)).counts.completed == 5

    told(story)


def test_the_plan_puts_equal_prompts_side_by_side() -> None:
    async def story(world: Deployment) -> None:
        order: list[bytes] = []

        async def answer(call: Call) -> Reply:
            order.append(call.body)
            return ok()

        one = AimdSettings(start=1, min=1, max=1)
        routes = Routes(default=Endpoint("gateway", MemoryUpstream(answer), limits=one))
        mixed = [request_line(f"{n}", content=f"prompt {n % 7}") for n in range(70)]
        async with world.processor(routes):
            await world.end_of((await world.submit(mixed)).id)
        changes = sum(a != b for a, b in pairwise(order))
        assert (len(order), changes) == (70, 6)

    told(story)


def test_never_more_in_flight_than_the_valves_allow() -> None:
    async def story(world: Deployment) -> None:
        flying = most = 0

        async def answer(call: Call) -> Reply:
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(1.0)
            flying -= 1
            return ok(model_of(call))

        wide = AimdSettings(start=50, min=1, max=50)
        routes = Routes(default=Endpoint("gateway", MemoryUpstream(answer), limits=wide))
        async with world.processor(routes, Settings(valves=Valves(in_flight_max=30))):
            await world.end_of((await world.submit(lines(90, "a", "a") + lines(90, "b", "b"))).id)
        assert most == 30

    told(story)


def test_bytes_in_flight_are_bounded_and_a_larger_line_runs_alone() -> None:
    async def story(world: Deployment) -> None:
        flying = 0
        alone: list[bool] = []

        async def answer(call: Call) -> Reply:
            nonlocal flying
            flying += len(call.body)
            assert flying <= 100_000 or flying == len(call.body)
            await asyncio.sleep(1.0)
            if len(call.body) > 100_000:
                alone.append(flying == len(call.body))
            flying -= len(call.body)
            return ok()

        data = [request_line(f"{n}", content="x" * 20_000) for n in range(20)]
        data.append(request_line("large", content="x" * 200_000))
        async with world.processor(answer, Settings(valves=Valves(in_flight_bytes_max=100_000))):
            batch = await world.end_of((await world.submit(data)).id)
        assert batch.counts.completed == 21
        assert alone == [True]

    told(story)


def test_stop_lets_lines_land_and_hands_the_rest_to_another_processor() -> None:
    async def story(world: Deployment) -> None:
        sent: Counter[str] = Counter()

        async def answer(call: Call) -> Reply:
            sent[call.headers["x-request-id"]] += 1
            await asyncio.sleep(3.0)
            return ok()

        async with world.processor(answer):
            batch = await world.submit(lines(200))
            await asyncio.sleep(4.0)
        stopped = now()
        assert stopped < 8.0, "what was in flight needed three seconds"
        async with world.processor(answer):
            await asyncio.sleep(0.5)
            assert len(sent) > 32, "the second processor went on at once"
            ended = await world.end_of(batch.id)
        assert ended.counts.completed == 200
        assert set(sent.values()) == {1}, "no line was sent twice"

    told(story)


def test_abort_cuts_what_flies_and_keeps_what_is_done() -> None:
    async def story(world: Deployment) -> None:
        async def answer(call: Call) -> Reply:
            await asyncio.sleep(1.0 if now() < 2.0 else 10_000.0)
            return ok()

        async with world.processor(answer) as processor:
            batch = await world.submit(lines(100))
            await asyncio.sleep(5.0)
            processor.abort()
        assert now() < 6.0
        assert (await world.get(batch.id)).counts.completed >= 16

    told(story)


def test_a_processor_may_be_stopped_before_it_runs_and_twice() -> None:
    async def story(world: Deployment) -> None:
        async with world.processor(at_once) as processor:
            processor.stop()
            processor.stop()
            processor.abort()

    told(story)


def test_a_dead_processor_is_replaced_within_its_lease() -> None:
    async def story(world: Deployment) -> None:
        async def hang(call: Call) -> Reply:
            await asyncio.sleep(10_000.0)
            return ok()

        settings = Settings(claims=Claims(lease_seconds=15.0))
        async with asyncio.TaskGroup() as group:

            async def dies() -> None:
                async with world.processor(hang, settings):
                    await asyncio.sleep(10_000.0)

            first = group.create_task(dies())
            batch = await world.submit(lines(20))
            await asyncio.sleep(5.0)
            first.cancel()
        died = now()
        async with world.processor(at_once, settings):
            ended = await world.end_of(batch.id)
        assert ended.counts.completed == 20
        assert now() - died < 16.0

    told(story)
