"""The only place that names concrete back-ends: it builds a process, and closes it in reverse."""

import asyncio
import random
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.types import ASGIApp

from tidegate.api.app import build_app
from tidegate.api.measured import Measured
from tidegate.api.observability import Settings as ObservabilitySettings, build_observability
from tidegate.blobs.base import BlobStore
from tidegate.blobs.disk import Disk
from tidegate.blobs.files import Files, SystemFiles
from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.blobs.memory import MemoryBlobs
from tidegate.config import BlobsKind, Gateway, Settings, StoreKind, is_loopback
from tidegate.domain.errors import SettingsInvalid
from tidegate.processor.endpoints import Endpoint, Routes
from tidegate.processor.keeper import Keeper, TaskKeeper, ThreadKeeper
from tidegate.processor.metered import Metered
from tidegate.processor.service import Processor, Tools
from tidegate.runtime.clock import Clock, SystemClock
from tidegate.runtime.failure import Failure
from tidegate.runtime.heartbeat import Heartbeat
from tidegate.runtime.identity import IdMaker, RandomIds
from tidegate.runtime.services import Service, Stops, run_together
from tidegate.runtime.web import WebServer, address_of, bind, raise_open_files
from tidegate.signals.base import Signals
from tidegate.signals.memory import MemorySignals
from tidegate.stores.base import Store
from tidegate.stores.executor import ThreadExecutor
from tidegate.stores.memory import MemoryStore
from tidegate.stores.sqlite import SqliteStore
from tidegate.telemetry.logs import (
    OPEN_WITHOUT_KEYS,
    PROCESS_STARTED,
    PROCESS_STOPPED,
    PROCESS_STOPPING,
    get_logger,
)
from tidegate.telemetry.metrics import Metrics
from tidegate.upstreams.catalogue import Catalogue
from tidegate.upstreams.http import HttpUpstream

LEDGER_FILE = "ledger.db"
BLOBS_FOLDER = "blobs"
SCRATCH_FOLDER = "scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a person wants to know once the process serves."""

    api_url: str
    observability_url: str
    data_dir: Path
    upstreams: tuple[str, ...]
    is_open: bool
    on_loopback: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What every room of the process shares."""

    store: Store
    blobs: BlobStore
    signals: Signals
    clock: Clock
    ids: IdMaker
    registry: CollectorRegistry
    metrics: Metrics


async def run_service(settings: Settings, *, on_ready: Callable[[Running], None]) -> bool:
    """Run API, processor and observability in this process until signals end it.

    Returns whether a second signal cut it short.

    Raises:
        SettingsInvalid: a port is taken, the data directory can't be used, a file is missing.
        BaseExceptionGroup: a service died; everything is closed by then.
    """
    stops = Stops()
    log = get_logger("serve")
    async with AsyncExitStack() as stack:
        stack.enter_context(stops.heard_from_signals())
        server = settings.server
        listener = stack.enter_context(bind(server.host, server.port, "server.port"))
        operators = stack.enter_context(
            bind(server.host, server.observability_port, "server.observability_port")
        )
        ports = await _open_ports(settings, stack)
        endpoints = _open_upstreams(settings, stack)
        failure = Failure()
        api = WebServer(
            _api(settings, ports, endpoints, failure),
            listener,
            settings.server.timeouts,
            connections_max=settings.api.limits.connections_max,
        )
        observability = WebServer(_observability(ports, stops), operators, settings.server.timeouts)
        services: dict[str, Service] = {
            "API": api,
            "processor": _processor(settings, ports, endpoints),
        }
        supporting: dict[str, Service] = {
            "observability": observability,
            "watch over the storage": failure,
            "heartbeat": Heartbeat(ports.metrics.loop_lag),
        }
        running = Running(
            api_url=address_of(listener),
            observability_url=address_of(operators),
            data_dir=settings.data_dir.absolute(),
            upstreams=tuple(gateway.url for gateway in _gateways(settings).values()),
            is_open=not settings.server.keys,
            on_loopback=is_loopback(server.host),
        )

        async def tell() -> None:
            await api.wait_until_listening()
            await observability.wait_until_listening()
            _log_start(running)
            on_ready(running)
            await stops.asked.wait()
            log.info(PROCESS_STOPPING)

        async with asyncio.TaskGroup() as group:
            teller = group.create_task(tell(), name="ready line")
            await run_together(services, supporting, stops)
            teller.cancel()
    log.info(PROCESS_STOPPED)
    return stops.forced.is_set()


class _Log:
    """What the API needs of a logger."""

    def __init__(self, room: str) -> None:
        self._logger = get_logger(room)

    def error(self, event: str, /, **fields: object) -> None:
        self._logger.error(event, **fields)


def _log_start(running: Running) -> None:
    log = get_logger("serve")
    log.info(PROCESS_STARTED, url=running.api_url, data_dir=str(running.data_dir))
    if running.is_open:
        log.warning(OPEN_WITHOUT_KEYS, url=running.api_url)


async def _open_ports(settings: Settings, stack: AsyncExitStack) -> Ports:
    raise_open_files()
    clock = SystemClock()
    make_directories(settings.data_dir, SystemFiles())
    store = await stack.enter_async_context(_make_store(settings, clock))
    blobs = _make_blobs(settings)
    stack.push_async_callback(blobs.aclose)
    await store.check()
    await blobs.check()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return Ports(
        store=store,
        blobs=blobs,
        signals=MemorySignals(),
        clock=clock,
        ids=RandomIds(),
        registry=registry,
        metrics=Metrics(registry),
    )


def make_directories(data_dir: Path, files: Files) -> None:
    """Make the data directory with all that lead to it, durably.

    A ledger survives no power loss in a directory whose own name does not.

    Raises:
        SettingsInvalid: it can't be made or used.
        StorageBroken: flushing its name failed.
    """
    scratch = data_dir.absolute() / SCRATCH_FOLDER
    try:
        Disk(data_dir, files).ensure_directory(scratch)
        for folder in (data_dir, scratch):
            # Proves that files can be made there; it vanishes when it is closed.
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as exc:
        raise SettingsInvalid(
            f"The data directory {data_dir} can't be used ({exc.strerror}): "
            "mend its permissions, or set data_dir."
        ) from exc


def _make_store(settings: Settings, clock: Clock) -> Store:
    if settings.store.kind is StoreKind.MEMORY:
        return MemoryStore(clock)
    return SqliteStore(settings.data_dir / LEDGER_FILE, clock, ThreadExecutor())


def _make_blobs(settings: Settings) -> BlobStore:
    if settings.blobs.kind is BlobsKind.MEMORY:
        return MemoryBlobs()
    return FilesystemBlobs(settings.data_dir / BLOBS_FOLDER)


def _gateways(settings: Settings) -> Mapping[str, Gateway]:
    """Return the configured model servers by a name for logs and metrics."""
    if settings.gateway is not None:
        return {"gateway": settings.gateway}
    return settings.model_gateways


def _open_upstreams(settings: Settings, stack: AsyncExitStack) -> Mapping[str, Endpoint]:
    endpoints: dict[str, Endpoint] = {}
    for name, gateway in _gateways(settings).items():
        upstream = HttpUpstream(gateway.http())
        stack.push_async_callback(upstream.aclose)
        endpoints[name] = Endpoint(
            name, upstream, limits=gateway.concurrency, pauses=gateway.pauses
        )
    return endpoints


def _routes(settings: Settings, endpoints: Mapping[str, Endpoint]) -> Routes:
    if settings.gateway is not None:
        return Routes(default=endpoints["gateway"])
    return Routes(by_model=endpoints)


def _api(
    settings: Settings, ports: Ports, endpoints: Mapping[str, Endpoint], failure: Failure
) -> ASGIApp:
    routes = _routes(settings, endpoints)
    server = settings.server
    app = build_app(
        settings=replace(
            settings.api_settings(),
            host=server.host,
            any_host=server.allow_open and not is_loopback(server.host),
        ),
        store=ports.store,
        blobs=ports.blobs,
        signals=ports.signals,
        models=_catalogue(routes),
        clock=ports.clock,
        ids=ports.ids,
        log=_Log("api"),
        on_storage_broken=failure.report,
    )
    return Measured(app, ports.metrics)


def _observability(ports: Ports, stops: Stops) -> ASGIApp:
    return build_observability(
        settings=ObservabilitySettings(),
        store=ports.store,
        blobs=ports.blobs,
        registry=ports.registry,
        ids=ports.ids,
        log=_Log("observability"),
        is_stopping=stops.asked.is_set,
    )


def _processor(settings: Settings, ports: Ports, endpoints: Mapping[str, Endpoint]) -> Processor:
    scratch = settings.data_dir / SCRATCH_FOLDER

    def make_scratch() -> BinaryIO:
        return tempfile.TemporaryFile(dir=scratch)

    routes = _routes(settings, endpoints)
    return Processor(
        settings.processor,
        Tools(
            store=ports.store,
            blobs=ports.blobs,
            signals=ports.signals,
            routes=routes,
            clock=ports.clock,
            ids=ports.ids,
            chance=random.Random(),  # noqa: S311 -- spreads retries; nothing secret hangs on it
            keeper=_keeper(settings, ports),
            observer=Metered(ports.metrics),
            make_scratch=make_scratch,
            models=_catalogue(routes),
            owner=ports.ids.make("processor_"),
        ),
    )


def _catalogue(routes: Routes) -> Catalogue:
    return Catalogue(
        {model: endpoint.upstream for model, endpoint in routes.by_model.items()},
        routes.default.upstream if routes.default else None,
    )


def _keeper(settings: Settings, ports: Ports) -> Keeper:
    claims = settings.processor.claims
    if settings.store.kind is StoreKind.MEMORY:
        return TaskKeeper(claims, ports.store)
    return ThreadKeeper(claims, lambda: _make_store(settings, ports.clock))
