"""The events of the prefix cache, read as other programs do: over ZMQ, in vLLM's format."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import zmq

from testkit.servers.simulated import WAIT_SECONDS, Simulated, simulated
from tidegate.domain.errors import SettingsInvalid
from tidegate.http_server.server import bind
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.simulator.kv_events.config import (
    BUFFER_STEPS_MAX,
    OWN_ENDPOINT,
    KvEventsConfig,
    kv_events_from,
)
from tidegate.simulator.kv_events.feed import Batch, BlockRemoved, BlockStored
from tidegate.simulator.kv_events.publisher import END, REPLAYED_AT_ONCE, Publisher
from tidegate.simulator.server.models import AdapterFlag
from tidegate.simulator.server.service import SimulatorServer
from tidegate.simulator.settings import SimulatorSettings

RECORDED = Path(__file__).parents[1] / "data" / "parity" / "vllm-kv-events.json"
ANY_PORT = "tcp://127.0.0.1:*"
EVENTS = KvEventsConfig(
    enable_kv_cache_events=True, endpoint=ANY_PORT, replay_endpoint=ANY_PORT, topic="kv@here@sim"
)
BLOCK = 8
SETTINGS = SimulatorSettings(
    engine=EngineSettings(kv_blocks=24, block_size=BLOCK, max_model_len=192, max_num_seqs=4),
    kv_events=EVENTS,
    adapters=(AdapterFlag("poet", "s3://poet"),),
    sleep_mode=True,
)
COMPLETION = "/v1/completions"
WAIT_MS = int(WAIT_SECONDS * 1000)
Frames = list[bytes]


class Index:
    """What a router would know of the cache: hashes from the events, and nothing else."""

    def __init__(self) -> None:
        self.known: set[int] = set()
        self.parents: dict[int, int | None] = {}

    def hear(self, batch: Batch) -> None:
        for event in batch.events:
            match event:
                case BlockStored():
                    previous = event.parent_block_hash
                    assert previous is None or previous in self.parents
                    for known in event.block_hashes:
                        assert known not in self.known, "stored twice"
                        self.known.add(known)
                        self.parents[known] = previous
                        previous = known
                case BlockRemoved():
                    assert set(event.block_hashes) <= self.known, "removed, but never stored"
                    self.known -= set(event.block_hashes)
                case _:
                    self.known.clear()


class Sockets:
    """Sockets of subscribers, all of which are closed at the end."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._opened: list[zmq.Socket[bytes]] = []

    def socket(self, kind: int) -> "zmq.Socket[bytes]":
        self._opened.append(self._context.socket(kind))
        return self._opened[-1]

    def close(self) -> None:
        for socket in self._opened:
            socket.close(linger=0)
        self._context.term()


@pytest.fixture
def context() -> Iterator[Sockets]:
    sockets = Sockets()
    yield sockets
    sockets.close()


@pytest.fixture
async def server() -> AsyncIterator[Simulated]:
    async with simulated(SETTINGS) as server:
        yield server


def endpoints(server: Simulated) -> tuple[str, str]:
    config = server.server.kv_events
    assert config is not None
    assert config.replay_endpoint is not None
    return config.address, config.replay_endpoint


async def receive(socket: "zmq.Socket[bytes]") -> Frames:
    """Receive without holding the event loop up, which the server shares."""

    def wait() -> Frames:
        assert socket.poll(WAIT_MS), "nothing has come"
        return socket.recv_multipart()

    return await asyncio.to_thread(wait)


async def replayed(context: Sockets, endpoint: str, start: int) -> list[Frames]:
    found: list[Frames] = []
    with context.socket(zmq.DEALER) as asker:
        asker.connect(endpoint)
        asker.send_multipart([b"", start.to_bytes(8, "big")])
        while True:
            frames = await receive(asker)
            assert frames[0] == b""
            if frames[2] == END:
                assert frames == [b"", b"", END, b""]
                return found
            found.append(frames)


def batch_of(payload: bytes) -> Batch:
    return msgspec.msgpack.decode(payload, type=Batch)


async def subscribed(context: Sockets, server: Simulated) -> "zmq.Socket[bytes]":
    """Return a subscriber that has received a message: earlier ones may be lost."""
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"kv@")
    socket.connect(endpoints(server)[0])
    async with asyncio.timeout(WAIT_SECONDS):
        while not socket.poll(0):
            await server.post("/reset_prefix_cache")
            await asyncio.sleep(0.01)
    return socket


async def test_a_subscriber_receives_block_events(server: Simulated, context: Sockets) -> None:
    socket = await subscribed(context, server)
    prompt = list(range(3 * BLOCK))
    body = {"prompt": prompt, "max_tokens": BLOCK + 1, "ignore_eos": True}
    await server.post(COMPLETION, **body)
    events: list[dict[str, object]] = []
    numbers = []
    while not any(event.get("parent_block_hash") for event in events):
        topic, number, payload = await receive(socket)
        assert topic == b"kv@here@sim"
        numbers.append(int.from_bytes(number, "big"))
        _, found, rank = msgspec.msgpack.decode(payload)
        assert rank == 0
        events += [event for event in found if event["type"] == "BlockStored"]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    first, second = events
    assert first["token_ids"] == prompt
    assert len(set(first["block_hashes"])) == 3  # type: ignore[call-overload]  # a decoded list
    assert first["parent_block_hash"] is None
    assert second["parent_block_hash"] == first["block_hashes"][-1]  # type: ignore[index]  # a list
    assert len(second["token_ids"]) == BLOCK  # type: ignore[arg-type]  # a decoded list
    assert first["extra_keys"] == [None] * 3


async def test_the_maps_and_frames_are_vllms(server: Simulated, context: Sockets) -> None:
    """The recording is of a running vLLM 0.32: the same members in the same order and types."""
    theirs = json.loads(RECORDED.read_text())["frames"]
    body = {"prompt": list(range(BLOCK)), "max_tokens": 2 * BLOCK, "ignore_eos": True}
    await server.post(COMPLETION, **body)
    await server.post("/reset_prefix_cache")
    found = await replayed(context, endpoints(server)[1], 0)
    ours = [*found, [b"", b"", END, b""]]
    assert [bytes.fromhex(frame) for frame in theirs[-1]] == ours[-1]
    shown = {kind_of(frames[3]): frames for frames in ours[:-1]}
    for recorded in theirs[:-1]:
        frames = [bytes.fromhex(frame) for frame in recorded]
        mine = shown[kind_of(frames[3])]
        assert len(mine) == len(frames)
        assert list(map(len, mine[:1] + mine[2:3])) == list(map(len, frames[:1] + frames[2:3]))
        assert types_of(mine[3]) == types_of(frames[3])


def kind_of(payload: bytes) -> tuple[str, bool]:
    """Return the kind of the first event, and whether it has a parent."""
    event = msgspec.msgpack.decode(payload)[1][0]
    return event["type"], event.get("parent_block_hash") is not None


def types_of(payload: bytes) -> list[object]:
    stamp, events, rank = msgspec.msgpack.decode(payload)
    members = [(name, type(value)) for name, value in events[0].items()]
    return [type(stamp), members, type(rank)]


async def test_an_index_from_the_events_is_the_engines_own(
    server: Simulated, context: Sockets
) -> None:
    """With evictions, preemptions, adapters, salts, aborts and a reset in between."""
    bodies: list[dict[str, object]] = [
        {"prompt": [number % 5, *range(number % 7 * BLOCK)], "max_tokens": 1 + number % 30}
        for number in range(60)
    ]
    for number, body in enumerate(bodies):
        body["ignore_eos"] = True
        if not number % 3:
            body["model"] = "poet"
        if not number % 4:
            body["cache_salt"] = "mine"
    async with asyncio.TaskGroup() as group:
        for body in bodies[:30]:
            group.create_task(server.post(COMPLETION, **body))
    await server.post("/reset_prefix_cache")
    async with asyncio.TaskGroup() as group:
        for body in bodies[30:]:
            group.create_task(server.post(COMPLETION, **body))
    await server.until_idle()
    pool = server.simulator.driver.engine.pool
    index = Index()
    found = await replayed(context, endpoints(server)[1], 0)
    for frames in found:
        index.hear(batch_of(frames[3]))
    kinds = {type(event) for frames in found for event in batch_of(frames[3]).events}
    assert BlockRemoved in kinds, "nothing was evicted: the test shows too little"
    assert index.known == set(pool._by_hash)
    assert index.known


async def test_adapters_and_salts_stand_in_the_events(server: Simulated, context: Sockets) -> None:
    body = {"prompt": [1] * 2 * BLOCK, "model": "poet", "cache_salt": "mine", "max_tokens": 1}
    await server.post(COMPLETION, **body)
    (frames,) = await replayed(context, endpoints(server)[1], 0)
    (event,) = batch_of(frames[3]).events
    assert isinstance(event, BlockStored)
    assert (event.lora_name, event.lora_id) == ("poet", 1)
    assert event.extra_keys == [["poet", "mine"], ["poet"]]


async def test_what_an_aborted_request_leaves_is_published_immediately(
    server: Simulated, context: Sockets
) -> None:
    engine = server.simulator.driver.engine
    await server.post("/sleep?level=0&mode=keep")
    await server.post("/wake_up")
    async with server.client.stream(
        "POST",
        COMPLETION,
        json={"prompt": [3] * BLOCK, "max_tokens": 150, "ignore_eos": True, "stream": True},
    ) as reply:
        async for _ in reply.aiter_lines():
            break
    await server.until_idle()
    index = Index()
    for frames in await replayed(context, endpoints(server)[1], 0):
        index.hear(batch_of(frames[3]))
    assert index.known == set(engine.pool._by_hash)


async def test_a_replay_begins_where_it_was_asked_for(server: Simulated, context: Sockets) -> None:
    for _ in range(5):
        await server.post("/reset_prefix_cache")
    found = await replayed(context, endpoints(server)[1], 3)
    assert [int.from_bytes(frames[2], "big") for frames in found] == [3, 4]
    assert await replayed(context, endpoints(server)[1], 5) == []


async def test_the_buffer_of_a_replay_is_bounded(context: Sockets) -> None:
    kept = REPLAYED_AT_ONCE + 10
    with Publisher(msgspec.structs.replace(EVENTS, buffer_steps=kept)) as publisher:
        for number in range(kept + 7):
            publisher.publish(Batch(float(number), []))
        assert publisher.config.replay_endpoint is not None
        found = await replayed(context, publisher.config.replay_endpoint, 0)
    assert [int.from_bytes(frames[2], "big") for frames in found] == list(range(7, kept + 7))


async def test_malformed_requests_for_a_replay_are_passed_over(
    server: Simulated, context: Sockets
) -> None:
    await server.post("/reset_prefix_cache")
    asker = context.socket(zmq.DEALER)
    asker.connect(endpoints(server)[1])
    for frames in ([b"x"], [b"", b"", b""], [b"", b"123456789"]):
        asker.send_multipart(frames)
    asker.send_multipart([b"", (0).to_bytes(8, "big")])
    assert (await receive(asker))[2] == (0).to_bytes(8, "big")
    assert (await receive(asker))[2] == END


async def test_a_subscriber_that_does_not_read_misses_batches_and_delays_no_other(
    context: Sockets,
) -> None:
    config = msgspec.structs.replace(EVENTS, hwm=1, buffer_steps=10)
    with Publisher(config) as publisher:
        slow = context.socket(zmq.SUB)
        slow.set_hwm(1)
        slow.setsockopt(zmq.SUBSCRIBE, b"")
        slow.connect(publisher.config.address)
        async with asyncio.timeout(WAIT_SECONDS):
            while not slow.poll(0):
                publisher.publish(Batch(0.0, []))
                await asyncio.sleep(0.01)
        last = publisher._next + 300
        stored = BlockStored([1], None, [1 << 20] * 20_000, 8, None, "GPU", None, [None], 0, "x")
        for number in range(publisher._next, last):
            publisher.publish(Batch(float(number), [stored]))
        assert publisher._next == last, "the publisher waited"
        heard = 0
        while await asyncio.to_thread(slow.poll, 500):
            heard += 1
            slow.recv_multipart()
        assert heard < 300
        assert publisher.config.replay_endpoint is not None
        found = await replayed(context, publisher.config.replay_endpoint, 0)
    assert [int.from_bytes(frames[2], "big") for frames in found] == list(range(last - 10, last))


async def test_a_publisher_connects_to_a_subscriber_with_an_address(context: Sockets) -> None:
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.bind(ANY_PORT)
    endpoint = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(endpoint, bytes)
    config = KvEventsConfig(enable_kv_cache_events=True, endpoint=endpoint.decode().rstrip("\0"))
    async with simulated(replace(SETTINGS, kv_events=config)) as server:
        async with asyncio.timeout(WAIT_SECONDS):
            while not socket.poll(0):
                await server.post("/reset_prefix_cache")
                await asyncio.sleep(0.01)
        frames = socket.recv_multipart()
        assert frames[0] == b""
        assert msgspec.msgpack.decode(frames[2])[1] == [{"type": "AllBlocksCleared"}]


async def test_the_sources_are_reported(server: Simulated) -> None:
    told = (await server.client.get("/kv_event_sources")).json()
    assert set(told) == {"0"}
    assert told["0"]["topic"] == "kv@here@sim"
    assert (told["0"]["endpoint"], told["0"]["replay_endpoint"]) == endpoints(server)
    async with simulated() as silent:
        assert (await silent.client.get("/kv_event_sources")).json() == {}


async def test_the_cache_is_not_reset_under_running_requests(server: Simulated) -> None:
    engine = server.simulator.driver.engine
    await server.post(COMPLETION, prompt=[1] * BLOCK, max_tokens=1)
    assert engine.pool._by_hash
    server.simulator.driver.pause(freezes=True)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(server.post(COMPLETION, prompt=[2] * BLOCK, max_tokens=9))
        await server.until(lambda: engine.waiting == 1)
        server.simulator.driver.resume()
        reply = await waiting
    assert reply.status_code == 200
    assert (await server.post("/reset_prefix_cache")).json() == {"success": True}
    assert not engine.pool._by_hash


async def test_a_taken_endpoint_is_refused() -> None:
    with Publisher(EVENTS) as publisher:
        taken = msgspec.structs.replace(publisher.config, endpoint=ANY_PORT)
        with pytest.raises(SettingsInvalid, match="can't be opened"):
            Publisher(taken)
        listener = bind("127.0.0.1", 0, "port")
        with pytest.raises(SettingsInvalid), listener:
            SimulatorServer(replace(SETTINGS, kv_events=taken), listener)


def test_what_the_flag_says_is_checked() -> None:
    found = kv_events_from('{"enable_kv_cache_events": true, "topic": "x"}')
    assert found.is_on
    assert found.binds
    assert not kv_events_from('{"enable_kv_cache_events":true,"publisher":"null"}').is_on
    assert not KvEventsConfig(endpoint="tcp://10.0.0.1:5557").binds
    assert KvEventsConfig(endpoint="ipc:///tmp/x").binds
    assert KvEventsConfig(endpoint="tcp://*:5557").binds
    for text in ("x", "[]", '{"publisher":"kafka"}', '{"buffer_steps":0}', '{"hwm":0}', '{"x":1}'):
        with pytest.raises(SettingsInvalid, match="kv-events-config"):
            kv_events_from(text)
    assert KvEventsConfig(buffer_steps=BUFFER_STEPS_MAX).buffer_steps == BUFFER_STEPS_MAX
    with pytest.raises(ValueError, match="buffer_steps"):
        KvEventsConfig(buffer_steps=BUFFER_STEPS_MAX + 1)


def test_without_an_endpoint_events_are_published_on_this_machine_alone() -> None:
    config = kv_events_from('{"enable_kv_cache_events": true}')
    assert config.is_on
    assert config.binds
    assert config.address == OWN_ENDPOINT
    assert OWN_ENDPOINT.startswith("tcp://127.0.0.1:")
