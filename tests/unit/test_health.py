"""A process that writes little still detects a full disk soon, and `/ready` reports it."""

import asyncio

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from testkit.scenarios.scenario import fails, now
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.errors import StorageBroken, StorageFull, StoreUnavailable
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.runtime.health import (
    PROBE_SECONDS,
    PROBE_SECONDS_FULL,
    PROBE_TIMEOUT_SECONDS,
    Condition,
    DiskSpaceMonitor,
)
from tidegate.runtime.ids import RandomIds
from tidegate.runtime.services import ShutdownRequest
from tidegate.stores.memory import MemoryStore
from tidegate.telemetry.logs import STORAGE_FREED, STORAGE_FULL
from tidegate.telemetry.metrics import Metrics
from tidegate.testing.loop import LoopClock, in_virtual_time, run_virtual
from tidegate.wiring.context import Ports, operators_app
from tidegate.wiring.serve import BatchServices, make_disk_space_monitor, ready_conditions

FULL = StorageFull("no room")


class Proof:
    """Fails as configured, and records when it was called."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hangs = False
        self.asked_at: list[float] = []

    async def __call__(self) -> None:
        self.asked_at.append(now())
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


@in_virtual_time
async def test_each_change_is_reported_once_and_a_full_disk_is_checked_more_often() -> None:
    is_ok, proof = Proof(), Proof()
    told: list[tuple[float, str | None]] = []
    watch = DiskSpaceMonitor((is_ok, proof), lambda reason: told.append((now(), reason)))
    began = now()
    async with asyncio.TaskGroup() as group:
        group.create_task(watch.run(), name="watch")
        await asyncio.sleep(1.0)
        assert told == []
        proof.error = FULL
        await asyncio.sleep(PROBE_SECONDS)
        assert watch.is_full
        await asyncio.sleep(2 * PROBE_SECONDS_FULL)
        proof.error = None
        await asyncio.sleep(PROBE_SECONDS_FULL)
        watch.stop()
    assert [watch.is_full] == [False]
    full_at, freed_at = (at - began for at, _ in told)
    assert [reason for _, reason in told] == ["no room", None]
    assert full_at == PROBE_SECONDS
    assert freed_at == PROBE_SECONDS + 3 * PROBE_SECONDS_FULL
    assert is_ok.asked_at == proof.asked_at


@in_virtual_time
async def test_without_an_answer_it_stays_what_it_was() -> None:
    proof = Proof()
    told: list[str | None] = []
    watch = DiskSpaceMonitor((proof,), told.append)
    proof.error = FULL
    async with asyncio.TaskGroup() as group:
        group.create_task(watch.run(), name="watch")
        await asyncio.sleep(0.5)
        proof.error = StoreUnavailable("away")
        await asyncio.sleep(2 * PROBE_SECONDS_FULL)
        assert watch.is_full
        proof.hangs = True
        await asyncio.sleep(3 * PROBE_TIMEOUT_SECONDS)
        assert watch.is_full
        asked = len(proof.asked_at)
        watch.abort()
    assert told == ["no room"]
    assert asked >= 4, "a proof that hangs is given up, and asked for again"


@in_virtual_time
async def test_a_broken_disk_ends_it() -> None:
    proof = Proof()
    proof.error = StorageBroken("a flush failed")
    with pytest.raises(StorageBroken):
        await DiskSpaceMonitor((proof,), lambda _reason: None).run()


def memory_ports() -> Ports:
    clock = LoopClock(asyncio.get_running_loop())
    registry = CollectorRegistry()
    return Ports(
        store=MemoryStore(clock),
        blobs=MemoryBlobs(),
        pubsub=MemoryPubSub(),
        clock=clock,
        ids=RandomIds(),
        registry=registry,
        metrics=Metrics(registry),
    )


@pytest.mark.parametrize("port", ["store", "blobs"])
def test_a_server_without_a_processor_shows_a_full_disk_in_metrics_and_log(port: str) -> None:
    async def story() -> None:
        ports = memory_ports()

        def shown() -> bool:
            return "tidegate_storage_full 1.0" in generate_latest(ports.registry).decode()

        fails(getattr(ports, port), "check", FULL, until=now() + 8.0)
        watch = make_disk_space_monitor(ports)
        async with asyncio.TaskGroup() as group:
            group.create_task(watch.run(), name="watch")
            await asyncio.sleep(1.5)
            assert shown()
            await asyncio.sleep(8.0)
            assert not shown()
            watch.stop()

    with capture_logs() as logs:
        run_virtual(story())
    assert [log["event"] for log in logs] == [STORAGE_FULL, STORAGE_FREED]


@in_virtual_time
async def test_ready_of_a_server_with_child_processors_reports_a_full_disk() -> None:
    """The server has no processor of its own here: it relies on its own probe of the disk."""

    ports = memory_ports()
    fails(ports.blobs, "check", FULL, until=now() + 8.0)
    monitor = make_disk_space_monitor(ports)
    children = {"processors": lambda: Condition(is_ok=True, message="2 of 2 processors are alive.")}
    app = operators_app(
        ports, ShutdownRequest(), ready_conditions(BatchServices(conditions=children), monitor)
    )
    transport = httpx.ASGITransport(app)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://operators") as client,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(monitor.run(), name="monitor")
        await asyncio.sleep(1.0)
        reply = await client.get("/ready")
        assert reply.status_code == 503
        assert reply.json()["checks"]["storage"] == "no room"
        await asyncio.sleep(9.0)
        reply = await client.get("/ready")
        assert reply.status_code == 200
        assert reply.json()["checks"]["storage"] == "ok"
        monitor.stop()
