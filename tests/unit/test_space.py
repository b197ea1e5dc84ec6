"""A process that writes little by itself still knows soon whether there is room to write."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.errors import StorageBroken, StorageFull, StoreUnavailable
from tidegate.runtime.identity import RandomIds
from tidegate.runtime.space import (
    LOOK_SECONDS,
    LOOK_SECONDS_FULL,
    PROOF_SECONDS_MAX,
    SpaceWatch,
)
from tidegate.signals.memory import MemorySignals
from tidegate.stores.memory import MemoryStore
from tidegate.telemetry.logs import STORAGE_FREED, STORAGE_FULL
from tidegate.telemetry.metrics import Metrics
from tidegate.testing.loop import LoopClock, run_virtual
from tidegate.testing.stories import fails, now
from tidegate.wiring.rooms import Ports
from tidegate.wiring.serving import watch_space

FULL = StorageFull("no room")


class Proof:
    """Fails as it is told, and notes when it was asked for."""

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


def test_it_tells_once_of_each_change_and_looks_more_often_while_it_is_full() -> None:
    async def story() -> None:
        fine, proof = Proof(), Proof()
        told: list[tuple[float, str | None]] = []
        watch = SpaceWatch((fine, proof), lambda reason: told.append((now(), reason)))
        began = now()
        async with asyncio.TaskGroup() as group:
            group.create_task(watch.run(), name="watch")
            await asyncio.sleep(1.0)
            assert told == []
            proof.error = FULL
            await asyncio.sleep(LOOK_SECONDS)
            assert watch.is_full
            await asyncio.sleep(2 * LOOK_SECONDS_FULL)
            proof.error = None
            await asyncio.sleep(LOOK_SECONDS_FULL)
            watch.stop()
        assert [watch.is_full] == [False]
        full_at, freed_at = (at - began for at, _ in told)
        assert [reason for _, reason in told] == ["no room", None]
        assert full_at == LOOK_SECONDS
        assert freed_at == LOOK_SECONDS + 3 * LOOK_SECONDS_FULL
        assert fine.asked_at == proof.asked_at

    run_virtual(story())


def test_without_an_answer_it_stays_what_it_was() -> None:
    async def story() -> None:
        proof = Proof()
        told: list[str | None] = []
        watch = SpaceWatch((proof,), told.append)
        proof.error = FULL
        async with asyncio.TaskGroup() as group:
            group.create_task(watch.run(), name="watch")
            await asyncio.sleep(0.5)
            proof.error = StoreUnavailable("away")
            await asyncio.sleep(2 * LOOK_SECONDS_FULL)
            assert watch.is_full
            proof.hangs = True
            await asyncio.sleep(3 * PROOF_SECONDS_MAX)
            assert watch.is_full
            asked = len(proof.asked_at)
            watch.abort()
        assert told == ["no room"]
        assert asked >= 4, "a proof that hangs is given up, and asked for again"

    run_virtual(story())


def test_a_broken_disk_ends_it() -> None:
    async def story() -> None:
        proof = Proof()
        proof.error = StorageBroken("a flush failed")
        with pytest.raises(StorageBroken):
            await SpaceWatch((proof,), lambda _reason: None).run()

    run_virtual(story())


@pytest.mark.parametrize("port", ["store", "blobs"])
def test_a_server_without_a_processor_tells_metrics_and_log_of_a_full_disk(port: str) -> None:
    async def story() -> None:
        clock = LoopClock(asyncio.get_running_loop())
        registry = CollectorRegistry()
        ports = Ports(
            store=MemoryStore(clock),
            blobs=MemoryBlobs(),
            signals=MemorySignals(),
            clock=clock,
            ids=RandomIds(),
            registry=registry,
            metrics=Metrics(registry),
        )

        def shown() -> bool:
            return "tidegate_storage_full 1.0" in generate_latest(registry).decode()

        fails(getattr(ports, port), "check", FULL, until=now() + 8.0)
        watch = watch_space(ports)
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
