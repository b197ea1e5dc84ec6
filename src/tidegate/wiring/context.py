"""The parts that processes are put together from."""

import random
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.types import ASGIApp

from tidegate.api.app import build_app
from tidegate.api.middleware.metrics import RequestMetrics
from tidegate.api.operations import Settings as ObservabilitySettings, build_observability
from tidegate.blobs.base import BlobStore
from tidegate.blobs.filesystem.disk import Disk
from tidegate.blobs.filesystem.files import Files, SystemFiles
from tidegate.config import Settings, UpstreamSettings, is_loopback
from tidegate.config.kinds import FILESYSTEM, MEMORY, SQLITE
from tidegate.domain.errors import SettingsInvalid
from tidegate.endpoints.catalogue import Catalogue
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.processor.context import MakeRenewer, ProcessorContext
from tidegate.processor.fallback_finalizer import OWNER_PREFIX, FallbackFinalizer
from tidegate.processor.leases.renewer import TaskLeaseRenewer, ThreadLeaseRenewer
from tidegate.processor.observer import Observer
from tidegate.processor.service import Processor
from tidegate.pubsub.base import PubSub
from tidegate.runtime.clock import Clock, SystemClock
from tidegate.runtime.health import Condition, space_condition
from tidegate.runtime.ids import IdMaker, RandomIds
from tidegate.runtime.interpreter import raise_open_file_limit
from tidegate.runtime.services import FatalErrorService, ShutdownRequest
from tidegate.stores.base import Store
from tidegate.telemetry.logs import get_logger
from tidegate.telemetry.metrics import Metrics
from tidegate.wiring.backends import BLOBS_FOLDER, LEDGER_FILE, open_blobs, open_pubsub, open_store
from tidegate.wiring.sandbox import http_sandbox, open_upstream, planning_sandbox

SCRATCH_FOLDER = "scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What every room of the process shares."""

    store: Store
    blobs: BlobStore
    pubsub: PubSub
    clock: Clock
    ids: IdMaker
    registry: CollectorRegistry
    metrics: Metrics


async def open_ports(settings: Settings, stack: AsyncExitStack, *, check: bool = True) -> Ports:
    """Open what the rooms share; the stack closes it. `check` proves by writing that it works.

    Raises:
        SettingsInvalid: the data directory can't be used.
        StorageBroken: the ledger or the blobs do not work.
        StoreUnavailable: the ledger does not answer.
    """
    raise_open_file_limit()
    clock = SystemClock()
    make_directories(settings.data_dir, SystemFiles())
    _check_ledger(settings)
    store = await stack.enter_async_context(open_store(settings, clock))
    blobs = open_blobs(settings, clock)
    stack.push_async_callback(blobs.aclose)
    if check:
        await store.check()
        await blobs.check()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return Ports(
        store=store,
        blobs=blobs,
        pubsub=open_pubsub(settings, clock),
        clock=clock,
        ids=RandomIds(),
        registry=registry,
        metrics=Metrics(registry),
    )


def make_directories(data_dir: Path, files: Files) -> None:
    """Make the data directory and its parents, durably.

    A ledger does not survive power loss in a directory whose own name does not.

    Raises:
        SettingsInvalid: it can't be made or used.
        StorageBroken: flushing its name failed.
    """
    scratch = data_dir.absolute() / SCRATCH_FOLDER
    try:
        Disk(data_dir, files).ensure_directory(scratch)
        for folder in (data_dir, scratch):
            # Proves that files can be made there; closing removes the file.
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as exc:
        raise SettingsInvalid(
            f"The data directory {data_dir} can't be used ({exc.strerror}): "
            "fix its permissions, or set data_dir."
        ) from exc


def _check_ledger(settings: Settings) -> None:
    """Refuse to make a new ledger beside blobs, because its collector would delete them all.

    The old ledger may have been moved, or not yet restored from a backup.

    Raises:
        SettingsInvalid: there are blobs, and no ledger.
    """
    if settings.store.kind != SQLITE or settings.blobs.kind != FILESYSTEM:
        return
    folder, ledger = settings.data_dir / BLOBS_FOLDER, settings.data_dir / LEDGER_FILE
    # Blobs are looked for first, because another process that starts now makes its ledger first.
    if any(path.is_file() for path in folder.glob("*/**/*")) and not ledger.is_file():
        raise SettingsInvalid(
            f"There are blobs in {folder} and no ledger at {ledger}: put the ledger back, or move "
            "the blobs away to start with an empty ledger."
        )


def upstream_settings_of(settings: Settings) -> Mapping[str, UpstreamSettings]:
    """Return the configured model servers by a name for logs and metrics."""
    if settings.upstream is not None:
        return {"upstream": settings.upstream}
    return settings.upstreams


def upstream_urls(settings: Settings) -> tuple[str, ...]:
    """Return the addresses of the model servers."""
    return tuple(item.url for item in upstream_settings_of(settings).values())


def open_upstreams(settings: Settings, stack: AsyncExitStack) -> Mapping[str, Endpoint]:
    """Return the model servers by name, each with a client that the stack closes."""
    endpoints: dict[str, Endpoint] = {}
    for name, chosen in upstream_settings_of(settings).items():
        upstream = open_upstream(chosen.http())
        stack.push_async_callback(upstream.aclose)
        endpoints[name] = Endpoint(
            name,
            upstream,
            limits=chosen.concurrency,
            backoff=chosen.backoff,
            open_sandbox=partial(
                http_sandbox,
                chosen.http(),
                memory_bytes_max=settings.processor.sandbox.memory_bytes_max,
                start_seconds=settings.processor.sandbox.start_seconds,
            ),
        )
    return endpoints


def _routes(settings: Settings, endpoints: Mapping[str, Endpoint]) -> Routes:
    if settings.upstream is not None:
        return Routes(default=endpoints["upstream"])
    return Routes(by_model=endpoints)


def api_app(
    settings: Settings, ports: Ports, endpoints: Mapping[str, Endpoint], failure: FatalErrorService
) -> ASGIApp:
    """Return the API; broken storage that it meets is reported to `failure`."""
    server = settings.server
    app = build_app(
        settings=replace(
            settings.api_settings(),
            host=server.host,
            any_host=server.allow_open and not is_loopback(server.host),
        ),
        store=ports.store,
        blobs=ports.blobs,
        pubsub=ports.pubsub,
        models=catalogue(settings, endpoints),
        clock=ports.clock,
        ids=ports.ids,
        log=get_logger("api"),
        on_storage_broken=failure.report,
    )
    return RequestMetrics(app, ports.metrics.http)


def operators_app(
    ports: Ports,
    stops: ShutdownRequest,
    conditions: Mapping[str, Callable[[], Condition]] | None = None,
) -> ASGIApp:
    """Return health, readiness and metrics; `conditions` are further checks by name."""
    return build_observability(
        settings=ObservabilitySettings(),
        store=ports.store,
        blobs=ports.blobs,
        registry=ports.registry,
        ids=ports.ids,
        log=get_logger("observability"),
        is_stopping=stops.requested.is_set,
        conditions=conditions or {},
    )


def make_processor(
    settings: Settings,
    ports: Ports,
    endpoints: Mapping[str, Endpoint],
    *,
    observer: Observer | None = None,
) -> Processor:
    """Return a processor; by default it reports to the metrics of the process."""
    return Processor(processor_context(settings, ports, endpoints, observer=observer))


def processor_context(
    settings: Settings,
    ports: Ports,
    endpoints: Mapping[str, Endpoint],
    *,
    observer: Observer | None = None,
) -> ProcessorContext:
    """Return what a processor is made of, with an owner's name that no other one ever had."""
    scratch = settings.data_dir / SCRATCH_FOLDER

    return ProcessorContext(
        settings=settings.processor,
        store=ports.store,
        blobs=ports.blobs,
        pubsub=ports.pubsub,
        routes=_routes(settings, endpoints),
        clock=ports.clock,
        ids=ports.ids,
        rng=random.Random(),  # noqa: S311 -- spreads retries; nothing secret hangs on it
        make_renewer=_renewer(settings, ports),
        observer=observer or ports.metrics.processor,
        open_spill_file=lambda: tempfile.TemporaryFile(dir=scratch, buffering=0),
        models=catalogue(settings, endpoints),
        owner=ports.ids.make("processor_"),
        open_plan_sandbox=partial(
            planning_sandbox,
            scratch=scratch,
            memory_bytes_max=settings.processor.sandbox.memory_bytes_max,
            start_seconds=settings.processor.sandbox.start_seconds,
        ),
    )


def make_ender(settings: Settings, ports: Ports) -> FallbackFinalizer:
    """Return what ends batches while no processor is alive; it knows no model server."""
    return FallbackFinalizer(
        ProcessorContext(
            settings=settings.processor,
            store=ports.store,
            blobs=ports.blobs,
            pubsub=ports.pubsub,
            clock=ports.clock,
            ids=ports.ids,
            rng=random.Random(),  # noqa: S311 -- spreads retries; nothing secret hangs on it
            owner=OWNER_PREFIX,
            make_renewer=_renewer(settings, ports),
            observer=ports.metrics.processor.logged_as("collector"),
        )
    )


def storage_condition(processor: Processor) -> Condition:
    """Return whether a processor can write; while the disk is full it sends nothing."""
    return space_condition(processor.storage_reason)


def catalogue(settings: Settings, endpoints: Mapping[str, Endpoint]) -> Catalogue:
    """Return what knows the models of these servers."""
    routes = _routes(settings, endpoints)
    return Catalogue(
        {model: endpoint.upstream for model, endpoint in routes.by_model.items()},
        routes.default.upstream if routes.default else None,
    )


def _renewer(settings: Settings, ports: Ports) -> MakeRenewer:
    claims = settings.processor.claims
    if settings.store.kind == MEMORY:
        return partial(TaskLeaseRenewer, claims, lambda: ports.store)
    return partial(ThreadLeaseRenewer, claims, lambda: open_store(settings, ports.clock))
