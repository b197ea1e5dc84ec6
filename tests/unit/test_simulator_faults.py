"""The simulated server goes wrong as it is told to, takes its time, and notices who hangs up."""

import asyncio
import json
from dataclasses import replace

import httpx
import pytest
from starlette.types import Message, Scope

from tidegate.simulator.app import Simulator, build_simulator
from tidegate.simulator.orders import BODIES_REMEMBERED_MAX, Orders
from tidegate.simulator.settings import SimulatorSettings

PATH = "/v1/chat/completions"


def body(**members: object) -> bytes:
    messages = [{"role": "user", "content": "Hello?"}]
    return json.dumps({"model": "sim", "messages": messages, **members}).encode()


def client_of(simulator: Simulator) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(simulator), base_url="http://sim")


async def post(simulator: Simulator, data: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client_of(simulator) as client:
        return await client.post(PATH, content=data, headers=named)


class Caller:
    """One request, message by message: for what an HTTP client would hide."""

    def __init__(self, data: bytes) -> None:
        self.waiting = asyncio.Event()
        self.hung_up = asyncio.Event()
        self.heard: list[Message] = []
        self._data: bytes | None = data
        self.scope: Scope = {"type": "http", "method": "POST", "path": PATH, "headers": []}

    async def receive(self) -> Message:
        data, self._data = self._data, None
        if data is not None:
            return {"type": "http.request", "body": data}
        self.waiting.set()
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.heard.append(message)


async def test_a_status_is_ordered_by_header() -> None:
    simulator = build_simulator(SimulatorSettings())
    reply = await post(simulator, body(), x_fault_status="429", x_fault_retry_after="7")
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == "7"
    assert reply.json()["error"]["code"] == 429
    assert (await post(simulator, body())).status_code == 200


@pytest.mark.parametrize("order", [{"status": 500}, json.dumps({"status": "500"})])
async def test_a_status_is_ordered_by_the_body(order: object) -> None:
    simulator = build_simulator(SimulatorSettings())
    for _ in range(3):
        reply = await post(simulator, body(metadata={"tidegate_fault": order, "mine": "kept"}))
        assert reply.status_code == 500
    assert (await post(simulator, body(metadata={"mine": "kept"}))).status_code == 200
    assert (await post(simulator, body(user="tidegate_fault"))).status_code == 200


async def test_a_header_wins_over_the_body() -> None:
    simulator = build_simulator(SimulatorSettings())
    data = body(metadata={"tidegate_fault": {"status": 500}})
    assert (await post(simulator, data, x_fault_status="503")).status_code == 503


async def test_a_fault_may_pass_after_some_times() -> None:
    simulator = build_simulator(SimulatorSettings())
    data = body(metadata={"tidegate_fault": {"status": 500, "times": 2}})
    other = body(user="another", metadata={"tidegate_fault": {"status": 500, "times": 1}})
    statuses = [(await post(simulator, each)).status_code for each in (data, other, data, data)]
    assert statuses == [500, 500, 500, 200]
    assert (await post(simulator, other)).status_code == 200


def test_only_so_many_bodies_are_remembered() -> None:
    orders = Orders()
    headers = {"status": "500", "times": "1"}
    assert orders.find(headers, b"", 0) is not None
    assert orders.find(headers, b"", 0) is None
    for digest in range(1, BODIES_REMEMBERED_MAX):
        orders.find(headers, b"", digest)
    assert orders.find(headers, b"", 0) is None
    # The one that came least lately makes room.
    orders.find(headers, b"", BODIES_REMEMBERED_MAX)
    assert orders.find(headers, b"", 0) is None
    assert orders.find(headers, b"", 1) is not None


@pytest.mark.parametrize(
    "order", [{"status": 700}, {"status": "x"}, {"stauts": 500}, "{", {"delay_seconds": -1}, 5]
)
async def test_an_order_that_makes_no_sense_is_refused(order: object) -> None:
    simulator = build_simulator(SimulatorSettings())
    reply = await post(simulator, body(metadata={"tidegate_fault": order}))
    assert reply.status_code == 400, reply.text
    assert "fault" in reply.json()["error"]["message"]
    assert simulator.in_flight == 0


async def test_a_reply_can_be_ordered_word_for_word() -> None:
    simulator = build_simulator(SimulatorSettings())
    reply = await post(simulator, body(metadata={"tidegate_fault": {"reply": '{"half'}}))
    assert (reply.status_code, reply.text) == (200, '{"half')
    order = {"reply": "busy", "status": 502}
    reply = await post(simulator, body(metadata={"tidegate_fault": order}))
    assert (reply.status_code, reply.text) == (502, "busy")


async def test_an_echo_is_the_body_byte_for_byte() -> None:
    simulator = build_simulator(SimulatorSettings())
    data = body()[:-1] + rb' , "odd":1e400,"\u00e9" :  18446744073709551617 }'
    assert (await post(simulator, data, x_fault_echo="true")).content == data


async def test_a_cut_promises_more_than_it_sends() -> None:
    caller = Caller(body(metadata={"tidegate_fault": {"cut": True}}))
    await build_simulator(SimulatorSettings())(caller.scope, caller.receive, caller.send)
    start, half = caller.heard
    promised = int(dict(start["headers"])[b"content-length"])
    assert 0 < len(half["body"]) < promised
    assert half["more_body"]


async def test_who_hangs_up_frees_the_place_at_once() -> None:
    simulator = build_simulator(SimulatorSettings(latency_seconds=3600.0))
    caller = Caller(body())
    async with asyncio.TaskGroup() as group:
        group.create_task(simulator(caller.scope, caller.receive, caller.send), name="call")
        await caller.waiting.wait()
        assert simulator.in_flight == 1
        caller.hung_up.set()
    assert simulator.in_flight == 0
    assert caller.heard == []
    assert simulator.served == {}


@pytest.mark.parametrize("status", [429, 503])
async def test_a_full_server_refuses(status: int) -> None:
    settings = SimulatorSettings(latency_seconds=3600.0, in_flight_max=2, full_status=status)
    simulator = build_simulator(settings)
    callers = [Caller(body()), Caller(body())]
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(simulator(caller.scope, caller.receive, caller.send), name="call")
            await caller.waiting.wait()
        assert (await post(simulator, body())).status_code == status
        assert simulator.in_flight_peak == 2
        for caller in callers:
            caller.hung_up.set()
    simulator.settings = replace(settings, latency_seconds=0.0)
    assert (await post(simulator, body())).status_code == 200


async def seconds_for(settings: SimulatorSettings, data: bytes) -> float:
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert (await post(build_simulator(settings), data)).status_code == 200
    return loop.time() - start


async def test_an_answer_takes_its_time() -> None:
    four = body(max_tokens=4, ignore_eos=True)
    models = ("sim", "slow")
    base = SimulatorSettings(models=models, latency_seconds=0.02, token_seconds=0.01)
    assert await seconds_for(base, four) >= 0.06
    factors = replace(base, model_factors={"slow": 3.0})
    assert await seconds_for(factors, four.replace(b'"sim"', b'"slow"')) >= 0.18
    streamed = body(max_tokens=4, ignore_eos=True, stream=True)
    assert await seconds_for(base, streamed) >= 0.06
    delayed = body(metadata={"tidegate_fault": {"delay_seconds": 0.05}})
    assert await seconds_for(SimulatorSettings(), delayed) >= 0.05


async def test_a_loading_server_refuses_until_it_is_ready() -> None:
    simulator = build_simulator(SimulatorSettings(loading_seconds=0.05))
    async with client_of(simulator) as client:
        for path in ("/health", "/v1/models"):
            assert (await client.get(path)).status_code == 503
        reply = await client.post(PATH, content=body())
        assert reply.status_code == 503
        assert reply.json()["error"]["message"] == "Loading model"
        # A timer of the same loop that falls due later runs later.
        ready = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.05, ready.set_result, None)
        await ready
        assert (await client.post(PATH, content=body())).status_code == 200
        simulator.load_again()
        assert (await client.get("/health")).status_code == 503


async def test_a_key_is_asked_for() -> None:
    simulator = build_simulator(SimulatorSettings(api_key="secret"))
    assert (await post(simulator, body())).status_code == 401
    assert (await post(simulator, body(), authorization="Bearer wrong")).status_code == 401
    assert (await post(simulator, body(), authorization="Bearer secret")).status_code == 200
    async with client_of(simulator) as client:
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
