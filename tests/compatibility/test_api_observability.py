"""Probes and scrapers get the true state of ledger and blobs, in bounded time."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from testkit.servers.api import ApiWorld
from tidegate.api.operations import Settings, build_observability
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.errors import SettingsInvalid, StoreUnavailable


class Probed:
    """An operators' port over a world whose parts can be made to fail."""

    def __init__(self) -> None:
        self.world = ApiWorld()
        self.registry = CollectorRegistry()
        self.stopping = False
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(
                build_observability(
                    settings=Settings(ready_seconds_max=0.05),
                    store=self.world.store,
                    blobs=self.world.blobs,
                    registry=self.registry,
                    ids=self.world.ids,
                    log=self.world.log,
                    is_stopping=lambda: self.stopping,
                )
            ),
            base_url="http://probe",
        )


@pytest.fixture
async def probed() -> AsyncIterator[Probed]:
    made = Probed()
    async with made.client:
        yield made


async def test_all_is_well(probed: Probed) -> None:
    health = await probed.client.get("/health")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    ready = await probed.client.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ok", "checks": {"store": "ok", "blobs": "ok"}}
    assert ready.headers["x-request-id"]


async def test_a_ledger_that_fails_is_named(probed: Probed) -> None:
    async def failing() -> None:
        raise StoreUnavailable("The ledger is away.")

    probed.world.store.check = failing  # type: ignore[method-assign]  # a fault, put there
    ready = await probed.client.get("/ready")
    assert ready.status_code == 503
    assert ready.json() == {
        "status": "failing",
        "checks": {"store": "The ledger is away.", "blobs": "ok"},
    }
    assert (await probed.client.get("/health")).status_code == 200


async def test_a_ledger_that_hangs_is_named_in_time(probed: Probed) -> None:
    async def hanging() -> None:
        await asyncio.Event().wait()

    probed.world.store.check = hanging  # type: ignore[method-assign]  # a fault, put there
    async with asyncio.timeout(20):
        ready = await probed.client.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["checks"] == {"store": "No answer within 0.05 s.", "blobs": "ok"}


async def test_a_full_disk_is_named(probed: Probed) -> None:
    full = MemoryBlobs(bytes_max=0)
    probed.world.blobs.check = full.check  # type: ignore[method-assign]  # a fault, put there
    ready = await probed.client.get("/ready")
    assert ready.status_code == 503
    assert "delete files" in ready.json()["checks"]["blobs"]


async def test_a_process_that_stops_takes_no_more(probed: Probed) -> None:
    probed.stopping = True
    ready = await probed.client.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["checks"]["process"] == "The process is stopping."


async def test_metrics_are_those_of_the_registry(probed: Probed) -> None:
    Counter("tides", "How often the water rose.", registry=probed.registry).inc(3)
    plain = await probed.client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert "tides_total 3.0" in plain.text
    modern = await probed.client.get(
        "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")


async def test_nothing_else_is_served(probed: Probed) -> None:
    assert (await probed.client.get("/v1/files")).status_code == 404
    assert (await probed.client.post("/ready")).status_code == 405


def test_a_wait_of_nothing_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="ready_seconds_max"):
        Settings(ready_seconds_max=0)
