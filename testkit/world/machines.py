"""The machines: each runs one process after the other, which crashes or is stopped."""

import asyncio
import random
from collections.abc import Coroutine
from functools import partial

from typing_extensions import override

from testkit.world.environment import FAULTS_SECONDS, MODELS, Environment, Report
from testkit.world.host import Host
from testkit.world.model_server import ModelServer, SimulatedSandbox
from testkit.world.planning import SimulatedPlanSandbox
from testkit.world.ports import HostBlobs, HostPubSub, behind
from tidegate.collector.duty import CollectorContext as CollectorTools
from tidegate.collector.service import Collector
from tidegate.collector.settings import Settings as CollectorSettings
from tidegate.domain.batch import Batch
from tidegate.domain.errors import StorageBroken
from tidegate.endpoints.endpoint import BackoffSettings, Endpoint, Routes
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.planning.settings import Planning
from tidegate.processor.context import ProcessorContext
from tidegate.processor.fallback_finalizer import OWNER_PREFIX, FallbackFinalizer
from tidegate.processor.leases.renewer import TaskLeaseRenewer
from tidegate.processor.observer import Observer
from tidegate.processor.service import Processor
from tidegate.processor.settings import (
    Claims,
    Commits,
    Drain,
    InFlightLimits,
    SandboxLimits,
    Settings,
)
from tidegate.runtime.ids import IdMaker
from tidegate.testing.upstreams import Begun

DOWNLOAD_SECONDS = 600.0
_RESTARTED = 0.2
_APPENDS_TOO = 0.8
Life = Coroutine[None, None, None]


class _Named(IdMaker):
    """Ids of an ender; those of its processors are known to be of this host."""

    def __init__(self, ids: IdMaker, host: Host, hosts: dict[str, Host]) -> None:
        self._ids = ids
        self._host = host
        self._hosts = hosts

    @override
    def make(self, prefix: str) -> str:
        made = self._ids.make(prefix)
        if prefix == OWNER_PREFIX:
            self._hosts[made] = self._host
        return made


class _Tally(Observer):
    """Counts the batches that were ended without a processor."""

    def __init__(self, report: Report) -> None:
        self._report = report

    @override
    def on_batch_ended(self, batch: Batch) -> None:
        self._report.ended_by_collectors += 1


class Machines:
    """Keeps processors and collectors alive. Each new process has settings of its own."""

    def __init__(self, ground: Environment, server: ModelServer) -> None:
        self._ground = ground
        self._server = server
        self._hosts: dict[str, Host] = {}
        self._doors: dict[Host, Begun] = {}
        ground.account.could_renew = self._could_renew

    async def keep(self, number: int) -> None:
        """Start a processor; when it is gone, start another one after a while. Never ends."""
        rng = self._ground.fork()
        while True:
            host = self._ground.host(f"machine {number}")
            processor = self._processor(host, rng)
            served = self._serve(host, processor, self._collector(host, rng))
            restarted = rng.random() < _RESTARTED
            restart = self._restart(host, processor, rng) if restarted else None
            await self._live(host, served, restart)
            await asyncio.sleep(rng.uniform(0.0, 5.0))

    async def collect(self) -> None:
        """Start collector after collector, and no processor. Never ends."""
        rng = self._ground.fork()
        while True:
            host = self._ground.host("the machine that only collects")
            await self._live(host, self._collector(host, rng).run())
            await asyncio.sleep(rng.uniform(0.0, 5.0))

    async def _live(self, host: Host, served: Life, beside: Life | None = None) -> None:
        """Let a process live until it ends, one way or the other."""
        try:
            async with asyncio.TaskGroup() as group:
                host.tasks.append(group.create_task(served, name=host.name))
                if beside is not None:
                    group.create_task(beside, name="restart")
        except* StorageBroken:
            host.note("ends, because its disk is broken")
            self._ground.report.failed_flushes += 1
        finally:
            crashed, host.alive = not host.alive, False
        self._ground.report.crashes += crashed

    async def _serve(self, host: Host, processor: Processor, collector: Collector) -> None:
        async with asyncio.TaskGroup() as group:
            self._doors.pop(host).tasks = group
            group.create_task(collector.run(), name="collector")
            await processor.run()
            collector.stop()

    def _collector(self, host: Host, rng: random.Random) -> Collector:
        ground = self._ground
        # A chance of its own, so that most seeds keep their stories.
        drawn = random.Random(f"ends on {host.name} at {asyncio.get_running_loop().time()}")
        return Collector(
            drawn_collecting(rng),
            CollectorTools(
                store=behind(ground.store, host),
                blobs=HostBlobs(ground.blobs, host, appends=ground.blobs.appends),
                clock=host.clock,
                ids=ground.ids,
                orphan_finalizer=self._ender(host, drawn),
            ),
        )

    def _ender(self, host: Host, rng: random.Random) -> FallbackFinalizer:
        ground = self._ground
        settings = drawn_settings(rng)
        store = behind(ground.store, host)
        return FallbackFinalizer(
            ProcessorContext(
                settings=settings,
                store=store,
                blobs=HostBlobs(ground.blobs, host, appends=ground.blobs.appends),
                pubsub=HostPubSub(ground.pubsub, host),
                clock=host.clock,
                ids=_Named(ground.ids, host, self._hosts),
                rng=rng,
                owner=OWNER_PREFIX,
                make_renewer=partial(TaskLeaseRenewer, settings.claims, lambda: store),
                observer=_Tally(ground.report),
            )
        )

    async def _restart(self, host: Host, processor: Processor, rng: random.Random) -> None:
        await asyncio.sleep(rng.uniform(0.0, FAULTS_SECONDS))
        if not host.alive:
            return
        host.note("is asked to stop")
        processor.stop()
        if rng.random() < 0.5:  # noqa: PLR2004 - a coin
            await asyncio.sleep(rng.uniform(0.0, 2.0))
            if host.alive:
                host.note("is asked to abort")
                processor.abort()

    def _could_renew(self, owner: str, granted_at: float) -> bool:
        host, calm_since = self._hosts[owner], self._ground.calm_since
        if not host.alive or calm_since is None:
            return False
        # A leap of all clocks leaves nobody time to renew.
        return granted_at > max(calm_since, host.settled_at, self._ground.leapt_at)

    def _processor(self, host: Host, rng: random.Random) -> Processor:
        ground = self._ground
        settings = drawn_settings(rng)
        owner = ground.ids.make("proc_")
        host.note(f"starts as {owner[:12]} with {settings.limits}")
        self._hosts[owner] = host
        store = behind(ground.store, host)
        upstream = self._server.seen_from(
            host,
            owner,
            exposed_lines_max=settings.limits.in_flight_max + settings.limits.uncommitted_lines_max,
        )
        # Of its own chance, so that the rest of the world stays as it is.
        begun = self._doors[host] = Begun(upstream, random.Random(owner))
        limits = AimdSettings(start=min(4, ground.endpoint_limit), min=1, max=ground.endpoint_limit)
        backoff = BackoffSettings(seconds_min=0.2, seconds_max=5.0, starting_seconds=5.0)
        routes = Routes(
            by_model={
                name: Endpoint(
                    name,
                    begun,
                    limits=limits,
                    backoff=backoff,
                    open_sandbox=partial(SimulatedSandbox, upstream, host, ground),
                )
                for name in MODELS[:-1]
            }
        )
        appends = ground.blobs.appends and rng.random() < _APPENDS_TOO
        return Processor(
            ProcessorContext(
                settings=settings,
                store=store,
                blobs=HostBlobs(ground.blobs, host, appends=appends),
                pubsub=HostPubSub(ground.pubsub, host),
                routes=routes,
                clock=host.clock,
                ids=ground.ids,
                rng=ground.fork(),
                make_renewer=partial(TaskLeaseRenewer, settings.claims, lambda: store),
                owner=owner,
                open_plan_sandbox=partial(SimulatedPlanSandbox, host, ground),
            )
        )


def drawn_collecting(rng: random.Random) -> CollectorSettings:
    """Draw the settings of a collector that is always at it, and compacts the smallest files."""
    interval_seconds = rng.choice([0.5, 2.0, 10.0])
    return CollectorSettings(
        interval_seconds=interval_seconds,
        sweep_seconds=interval_seconds * rng.choice([1.0, 3.0]),
        download_seconds_max=DOWNLOAD_SECONDS,
        upload_seconds_max=rng.choice([1.0, 300.0]),
        compact_parts_min=rng.choice([2, 3, 8]),
        compact_bytes_max=rng.choice([500, 5_000]),
    )


def drawn_settings(rng: random.Random) -> Settings:
    """Draw the settings of a processor: small bounds, so that few lines meet all of them."""
    return Settings(
        claims=Claims(lease_seconds=rng.choice([4.0, 6.0, 15.0])),
        limits=InFlightLimits(
            open_shards_max=rng.choice([1, 1, 2, 3, 6]),
            in_flight_max=rng.randint(1, 8),
            uncommitted_lines_max=rng.randint(1, 20),
        ),
        planning=Planning(shard_lines_max=rng.randint(1, 8), run_lines_max=rng.randint(2, 50)),
        commits=Commits(lines_max=rng.randint(1, 10)),
        sandbox=SandboxLimits(count_max=rng.choice([1, 1, 4])),
        drain=Drain(drain_seconds=rng.choice([0.0, 1.0, 30.0]), stop_grace_seconds=5.0),
    )
