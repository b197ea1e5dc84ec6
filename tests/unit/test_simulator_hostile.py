"""The simulated server answers or refuses any request, and never with a 500."""

import asyncio
from array import array

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from typing_extensions import override

from testkit.fuzz.simulator import Recorder
from testkit.fuzz.simulator_bodies import BODIES
from testkit.servers.simulated import simulated
from tidegate.simulator.answers.generation import Choice, Generation
from tidegate.simulator.answers.plans import Plan
from tidegate.simulator.engine.sequence import Request
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.simulator.formats.chat import ChatStyle
from tidegate.simulator.formats.texts import Names
from tidegate.simulator.server.app import Simulator
from tidegate.simulator.settings import SimulatorSettings
from tidegate.simulator.web.call import Call

PATHS = [
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"),
    *("/tokenize", "/detokenize", "/admin/faults"),
]


async def statuses(path: str, bodies: list[bytes], errors: list[object]) -> list[bytes]:
    """Answer bodies one after the other; return their status lines, and what went wrong."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    size = EngineSettings(max_model_len=128, kv_blocks=64)
    simulator = Simulator(SimulatorSettings(engine=size), loop.time)
    wires = []
    for body in bodies:
        wire = Recorder()
        wires.append(wire)
        simulator.handle(
            Call(
                wire,
                method="POST",
                path=path,
                headers={},
                body=body,
                keeps_alive=True,
                is_framed=True,
            )
        )
    async with asyncio.TaskGroup() as group:
        group.create_task(simulator.driver.run(), name="engine")
        async with asyncio.timeout(20):
            while simulator.driver.unfinished:  # noqa: ASYNC110 - the driver sends no event
                await asyncio.sleep(0.001)
        # What has ended is handed out within the same turn of the loop.
        await asyncio.sleep(0)
        simulator.driver.stop()
    return [bytes(wire.heard.partition(b"\r\n")[0]) for wire in wires]


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=BODIES)
def test_no_body_gets_a_500(path: str, body: dict[str, object]) -> None:
    errors: list[object] = []
    data = msgspec.json.encode(body)
    (line,) = asyncio.run(statuses(path, [data], errors))
    assert errors == []
    # A fault may be ordered that never answers, or a status by hand: that is no bug of the server.
    if b"tidegate_fault" not in data:
        assert line.split()[1] in {b"200", b"400", b"404"}, line


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=60))
def test_no_bytes_get_a_500(path: str, data: bytes) -> None:
    errors: list[object] = []
    (line,) = asyncio.run(statuses(path, [data], errors))
    assert errors == []
    assert line.split()[1] in {b"200", b"400", b"404"}, line


async def test_an_answer_that_can_not_be_written_ends_itself_alone() -> None:
    class Broken(ChatStyle, frozen=True):
        @override
        def whole(self, generation: Generation) -> bytes:
            raise RuntimeError("a bug")

    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with simulated() as server:
        simulator = server.simulator
        request = Request(key="k", prompt=array("I", [1]), output_tokens=2)
        wire = Recorder()
        call = Call(
            wire, method="POST", path="/", headers={}, body=b"", keeps_alive=True, is_framed=True
        )
        style = Broken(names=Names('"a"', 0, '"sim"'))
        choice = Choice(0, Plan(2, "stop"), request)
        simulator.in_flight += 1
        Generation(call, style, [choice], simulator, is_streamed=False).begin()
        await server.until_idle()
        assert len(errors) == 1
        assert call.is_over
        assert (await server.post("/v1/completions", prompt="x")).status_code == 200
