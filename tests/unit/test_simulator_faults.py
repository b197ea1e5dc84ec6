"""The simulated server fails as configured, by request, by the clock, and while it runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec
import pytest

from testkit.servers.simulated import Simulated, simulated
from tidegate.domain.errors import SettingsInvalid
from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.faults.per_request import (
    BODIES_REMEMBERED_MAX,
    DELAY_SECONDS_MAX,
    RequestFault,
    RequestFaults,
)
from tidegate.simulator.faults.schedule import (
    WINDOWS_MAX,
    FaultPlan,
    FaultSchedule,
    FaultWindow,
    plan_from,
    plan_from_file,
)
from tidegate.simulator.settings import SimulatorSettings

PATH = "/v1/chat/completions"


def body(**members: object) -> bytes:
    messages = [{"role": "user", "content": "Hello?"}]
    return json.dumps({"model": "sim", "messages": messages, **members}).encode()


@pytest.fixture
async def server() -> AsyncIterator[Simulated]:
    async with simulated() as server:
        yield server


async def post(server: Simulated, data: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await server.client.post(PATH, content=data, headers=named)


async def test_a_status_is_ordered_by_header(server: Simulated) -> None:
    reply = await post(server, body(), x_fault_status="429", x_fault_retry_after="7")
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == "7"
    assert reply.json()["error"]["code"] == 429
    assert (await post(server, body())).status_code == 200
    assert server.simulator.in_flight == 0


@pytest.mark.parametrize("order", [{"status": 500}, json.dumps({"status": "500"})])
async def test_a_status_is_ordered_by_the_body(server: Simulated, order: object) -> None:
    for _ in range(3):
        reply = await post(server, body(metadata={"tidegate_fault": order, "mine": "kept"}))
        assert reply.status_code == 500
    assert (await post(server, body(metadata={"mine": "kept"}))).status_code == 200
    assert (await post(server, body(user="tidegate_fault"))).status_code == 200


async def test_a_header_wins_over_the_body(server: Simulated) -> None:
    data = body(metadata={"tidegate_fault": {"status": 500}})
    assert (await post(server, data, x_fault_status="503")).status_code == 503


async def test_a_fault_may_pass_after_some_times(server: Simulated) -> None:
    data = body(metadata={"tidegate_fault": {"status": 500, "times": 2}})
    other = body(user="another", metadata={"tidegate_fault": {"status": 500, "times": 1}})
    statuses = [(await post(server, each)).status_code for each in (data, other, data, data)]
    assert statuses == [500, 500, 500, 200]
    assert (await post(server, other)).status_code == 200


def test_a_bounded_number_of_bodies_is_remembered() -> None:
    orders = RequestFaults()
    headers = {"status": "500", "times": "1"}
    assert orders.find(headers, b"first") is not None
    assert orders.find(headers, b"first") is None
    for number in range(BODIES_REMEMBERED_MAX - 1):
        assert orders.find(headers, b"%d" % number) is not None
    assert orders.find(headers, b"first") is None
    for number in range(BODIES_REMEMBERED_MAX):
        orders.find(headers, b"again %d" % number)
    assert orders.find(headers, b"first") is not None


@pytest.mark.parametrize(
    "order",
    [
        {"status": 199},
        {"status": 600},
        {"delay_seconds": -1},
        {"delay_seconds": DELAY_SECONDS_MAX + 1},
        {"cut_after": 0},
        {"times": -1},
        {"colour": "red"},
        "not JSON",
        7,
    ],
    ids=str,
)
async def test_an_order_that_makes_no_sense_is_refused(server: Simulated, order: object) -> None:
    reply = await post(server, body(metadata={"tidegate_fault": order}))
    assert reply.status_code == 400
    assert "order of a fault" in reply.json()["error"]["message"]
    assert server.simulator.in_flight == 0


async def test_a_reply_and_an_echo_are_ordered(server: Simulated) -> None:
    reply = await post(server, body(metadata={"tidegate_fault": {"reply": '{"half'}}))
    assert (reply.status_code, reply.content) == (200, b'{"half')
    data = body(odd=1)
    assert (await post(server, data, x_fault_echo="true")).content == data
    order = {"reply": "gone", "status": 502}
    reply = await post(server, body(metadata={"tidegate_fault": order}))
    assert (reply.status_code, reply.content) == (502, b"gone")


async def test_a_reply_is_cut_in_the_middle(server: Simulated) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await post(server, body(metadata={"tidegate_fault": {"cut": True}}))
    await server.until_idle()
    assert (await post(server, body())).status_code == 200


async def test_a_stream_is_cut_after_some_events(server: Simulated) -> None:
    data = body(stream=True, max_tokens=200, ignore_eos=True)
    headers = {"x-fault-cut": "true", "x-fault-cut-after": "3"}
    heard = bytearray()

    async def read() -> None:
        async with server.client.stream("POST", PATH, content=data, headers=headers) as reply:
            async for piece in reply.aiter_raw():
                heard.extend(piece)

    with pytest.raises(httpx.RemoteProtocolError):
        await read()
    assert heard.count(b"data: {") == 3
    assert b"[DONE]" not in heard
    await server.until_idle()


@pytest.mark.parametrize("stream", [False, True])
async def test_garbage_is_no_json(server: Simulated, *, stream: bool) -> None:
    reply = await post(server, body(stream=stream), x_fault_garbage="true")
    assert reply.status_code == 200
    with pytest.raises(ValueError, match=r"utf-8"):
        reply.content.decode()
    await server.until_idle()


async def test_a_delay_and_a_hang(server: Simulated) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert (await post(server, body(), x_fault_delay_seconds="0.1")).status_code == 200
    assert loop.time() - start >= 0.095
    with pytest.raises(httpx.ReadTimeout):
        await server.client.post(
            PATH, content=body(), headers={"x-fault-hang": "true"}, timeout=0.2
        )
    await server.until_idle()
    assert server.simulator.in_flight == 0


async def test_latency_and_steps_take_their_time() -> None:
    settings = SimulatorSettings(latency_seconds=0.1)
    async with simulated(settings) as server:
        start = asyncio.get_running_loop().time()
        assert (await post(server, body())).status_code == 200
        assert asyncio.get_running_loop().time() - start >= 0.095


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        (SimulatorSettings(in_flight_max=2), 429),
        (SimulatorSettings(queued_requests_max=2), 503),
        (SimulatorSettings(queued_tokens_max=1, latency_seconds=0.0), 503),
    ],
    ids=["in flight", "requests", "tokens"],
)
async def test_a_full_server_refuses(settings: SimulatorSettings, status: int) -> None:
    slow = replace(settings, cost=slow_cost())
    async with simulated(slow) as server:
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(post(server, body()), name="call") for _ in range(2)]
            if settings.queued_tokens_max is not None:
                await server.until(lambda: server.simulator.driver.queued_tokens > 0)
            else:
                await server.until(lambda: server.simulator.in_flight == 2)
            reply = await post(server, body())
            assert reply.status_code == status
            assert reply.json()["error"]["code"] == status
            for call in calls:
                call.cancel()
        await server.until_idle()


def slow_cost() -> Cost:
    """Return the law of an engine whose steps take longer than any test."""
    return Cost.of_seconds(fixed=30.0, prefill_token=0.0, decode_seq=0.0, context_token=0.0)


async def test_a_server_that_starts_refuses_until_it_is_ready() -> None:
    async with simulated(SimulatorSettings(startup_seconds=0.2)) as server:
        for path in ("/health", "/v1/models"):
            assert (await server.client.get(path)).status_code == 503
        assert (await server.client.get("/metrics")).status_code == 200
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.call_later(0.2, ready.set_result, None)
        await ready
        assert (await server.client.get("/health")).status_code == 200
        assert (await post(server, body())).status_code == 200


# By the clock


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_window_opens_and_closes() -> None:
    clock = Clock()
    window = FaultWindow(fault=RequestFault(status=503), from_seconds=10, until_seconds=20)
    schedule = FaultSchedule(FaultPlan(windows=[window]), clock)
    hits = []
    for now in (100.0, 109.9, 110.0, 119.9, 120.0):
        clock.now = now
        hits.append(schedule.draw() is not None)
    assert hits == [False, False, True, True, False]


def test_the_share_is_kept_and_the_draws_repeat() -> None:
    plans = [
        FaultPlan(windows=[FaultWindow(fault=RequestFault(status=500), rate=0.25)], seed=n)
        for n in (1, 1, 2)
    ]
    drawn = []
    for plan in plans:
        schedule = FaultSchedule(plan, Clock())
        drawn.append([schedule.draw() is not None for _ in range(4_000)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert 900 < sum(drawn[0]) < 1_100
    never = FaultSchedule(FaultPlan(windows=[FaultWindow(fault=RequestFault(), rate=0.0)]), Clock())
    assert not any(never.draw() for _ in range(100))


@pytest.mark.parametrize(
    "text",
    [
        "windows: [{fault: {status: 99}}]",
        "windows: [{fault: {}, rate: 1.5}]",
        "windows: [{fault: {}, from_seconds: 5, until_seconds: 5}]",
        "windows: [{rate: 1.0}]",
        "windowz: []",
        "windows: {",
        "- 1",
    ],
)
def test_a_wrong_file_of_faults_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    with pytest.raises(SettingsInvalid) as caught:
        plan_from_file(path)
    assert str(caught.value).startswith("--faults: ")
    assert "\n" not in str(caught.value)


def test_a_file_of_faults_is_read(tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text("seed: 7\nwindows:\n- fault: {status: 503, retry_after: '1'}\n  rate: 0.5\n")
    plan = plan_from_file(path)
    assert plan.seed == 7
    assert plan.windows[0].fault.retry_after == "1"
    path.write_text("")
    assert plan_from_file(path).windows == []
    with pytest.raises(SettingsInvalid, match="can't read"):
        plan_from_file(tmp_path / "absent.yaml")


def test_the_number_of_windows_is_bounded() -> None:
    data = msgspec.json.encode({"windows": [{"fault": {}}] * WINDOWS_MAX})
    assert len(plan_from(data).windows) == WINDOWS_MAX
    with pytest.raises(msgspec.ValidationError):
        plan_from(msgspec.json.encode({"windows": [{"fault": {}}] * (WINDOWS_MAX + 1)}))


async def test_faults_are_changed_live(server: Simulated) -> None:
    assert (await server.client.get("/admin/faults")).json()["windows"] == []
    plan = {"windows": [{"fault": {"status": 502}}]}
    changed = await server.client.post("/admin/faults", json=plan)
    assert changed.status_code == 200
    assert (await post(server, body())).status_code == 502
    assert (await server.client.get("/admin/faults")).json()["asked"] == [1]
    wrong = await server.client.post("/admin/faults", json={"windows": 1})
    assert wrong.status_code == 400
    assert (await post(server, body())).status_code == 502
    assert (await server.client.post("/admin/faults", json={})).status_code == 200
    assert (await post(server, body())).status_code == 200
