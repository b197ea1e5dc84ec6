"""Hostile requests to the simulated server: no bug answers, and nothing is left behind."""

import asyncio
from dataclasses import dataclass

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from testkit.fuzz.mutations import Edit, edited, edits
from testkit.fuzz.simulator_bodies import BODIES, usual
from testkit.fuzz.target import Target
from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.engine.settings import EngineSettings, Policy
from tidegate.simulator.server.app import Simulator
from tidegate.simulator.server.models import AdapterFlag
from tidegate.simulator.settings import SimulatorSettings
from tidegate.simulator.web.call import Call
from tidegate.testing.loop import run_virtual

SETTINGS = SimulatorSettings(
    engine=EngineSettings(
        max_model_len=128, kv_blocks=64, max_num_seqs=4, policy=Policy.PRIORITY, max_loras=1
    ),
    # Slow enough that some requests are hung up on before they have their answer.
    cost=Cost.of_seconds(fixed=0.01, prefill_token=0.0, decode_seq=0.0, context_token=0.0),
    transfer_seconds=0.02,
    adapters=(AdapterFlag("poet", "somewhere"),),
    sleep_mode=True,
)
GENERATING = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")
PATHS = (
    *GENERATING,
    *("/tokenize", "/detokenize", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"),
    *("/sleep", "/wake_up", "/reset_prefix_cache", "/admin/faults", "/admin/metrics"),
    *("/metrics", "/v1/models", "/is_sleeping", "/kv_event_sources", "/nowhere"),
)
TELLING = [b'"', b"{", b"}", b"[", b"null", b"\\ud800", b"\x00", b"\xff", b"1e999", b"[" * 3_000]
REST_SECONDS = 0.05
BUG = b"InternalServerError"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    body: bytes


_HEADERS = st.dictionaries(
    st.sampled_from(
        [b"x-request-id", b"x-fault-status", b"x-fault-cut", b"x-fault-hang", b"x-fault-garbage",
         b"x-fault-delay-seconds", b"x-fault-reply", b"x-fault-times", b"authorization"]
    ),
    st.sampled_from([b"true", b"1", b"503", b"0.01", b"x", b"\xff", b""]),
    max_size=1,
)  # fmt: skip
_QUERIES = st.sampled_from(
    ["", "level=0", "level=2&mode=wait", "mode=keep", "tags=weights", "level=x", "tags=", "%ff=%00"]
)


def _asked(path: str) -> SearchStrategy[Asked]:
    body = st.builds(
        lambda body, changes: edited(msgspec.json.encode(body), changes),
        usual(path) | BODIES,
        st.just(list[Edit]()) | edits(TELLING),
    )
    method = st.sampled_from(["POST", "POST", "POST", "GET", "HEAD", "DELETE"])
    headers = st.just(dict[bytes, bytes]()) | _HEADERS
    return st.builds(Asked, method, st.just(path), _QUERIES, headers, body)


INPUTS = st.lists(
    st.sampled_from(GENERATING).flatmap(_asked) | st.sampled_from(PATHS).flatmap(_asked),
    min_size=1,
    max_size=4,
)


class Recorder:
    """A connection that only listens."""

    is_stalled = False

    def __init__(self) -> None:
        self.heard = bytearray()

    def send(self, data: bytes) -> None:
        """Remember what is sent."""
        self.heard += data

    def done(self, *, closes: bool) -> None:
        """There is nothing to close."""


def call_of(asked: Asked, wire: Recorder) -> Call:
    """Return a request as a connection hands it on."""
    return Call(
        wire,
        method=asked.method,
        path=asked.path,
        query=asked.query,
        headers=asked.headers,
        body=asked.body,
        keeps_alive=True,
        is_framed=True,
    )


def check(requests: list[Asked]) -> None:
    """Ask one after the other, hang up on what hangs, and see that all is as before."""
    run_virtual(_check(requests))


async def _check(requests: list[Asked]) -> None:
    loop = asyncio.get_running_loop()
    errors: list[object] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    simulator = Simulator(SETTINGS, loop.time)
    wires, calls = [], []
    async with asyncio.TaskGroup() as group:
        group.create_task(simulator.driver.run(), name="engine")
        for asked in requests:
            wire = Recorder()
            call = call_of(asked, wire)
            wires.append(wire)
            calls.append(call)
            simulator.handle(call)
            await asyncio.sleep(REST_SECONDS)
        simulator.driver.resume()
        for call in calls:
            if not call.is_over:
                call.hung_up()
        await asyncio.sleep(REST_SECONDS)
        simulator.driver.stop()
    assert not errors, errors
    assert not any(BUG in wire.heard for wire in wires)
    engine = simulator.driver.engine
    left = (simulator.driver.unfinished, simulator.in_flight, engine.pool.held, engine.waiting)
    assert left == (0, 0, 0, 0), left


TARGET = Target(name="simulator", inputs=INPUTS, check=check)
