"""The process that serves the API, with a processor in it, child processors, or neither."""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tidegate.config import Settings, is_loopback, settings_to_json
from tidegate.endpoints.endpoint import Endpoint
from tidegate.http_server.server import WebServer, address_of, bind
from tidegate.runtime.health import Condition, DiskSpaceMonitor
from tidegate.runtime.loop_lag import LoopLagMonitor
from tidegate.runtime.services import FatalErrorService, Service, ShutdownRequest, run_together
from tidegate.supervisor.supervisor import ChildProcess, Supervisor, start_child
from tidegate.telemetry.logs import (
    OPEN_WITHOUT_KEYS,
    PROCESS_STARTED,
    PROCESS_STOPPED,
    PROCESS_STOPPING,
    PROCESSOR_ENDED,
    PROCESSOR_OVERDUE,
    PROCESSOR_STARTED,
    STORAGE_FREED,
    STORAGE_FULL,
    get_logger,
)
from tidegate.wiring.context import (
    Ports,
    api_app,
    make_processor,
    open_ports,
    open_upstreams,
    operators_app,
    storage_condition,
    upstream_urls,
)
from tidegate.wiring.gc import make_collector

# `-P`: a file in the working directory is never imported in place of our modules.
PROCESSOR_COMMAND = (sys.executable, "-P", "-m", "tidegate", "processor", "--supervised")
ABORT_SLACK_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What `serve` prints once it is ready."""

    api_url: str
    observability_url: str
    data_dir: Path
    upstreams: tuple[str, ...]
    processors: int
    is_open: bool
    on_loopback: bool


async def run_service(settings: Settings, *, on_ready: Callable[[Running], None]) -> bool:
    """Run API, processors and observability until signals end this process.

    Returns whether a second signal cut it short.

    Raises:
        SettingsInvalid: a port is taken, the data directory can't be used, a file is missing.
        BaseExceptionGroup: a service died; everything is closed by then.
    """
    shutdown = ShutdownRequest()
    log = get_logger("serve")
    async with AsyncExitStack() as stack:
        stack.enter_context(shutdown.listen_to_signals())
        server = settings.server
        listener = stack.enter_context(bind(server.host, server.port, "server.port"))
        operators = stack.enter_context(
            bind(server.host, server.observability_port, "server.observability_port")
        )
        ports = await open_ports(settings, stack)
        endpoints = open_upstreams(settings, stack)
        fatal_errors = FatalErrorService()
        api = WebServer(
            api_app(settings, ports, endpoints, fatal_errors),
            listener,
            server.timeouts,
            connections_max=settings.api.limits.connections_max,
        )
        working = _processing(settings, ports, endpoints)
        disk_space = make_disk_space_monitor(ports)
        operators_api = operators_app(ports, shutdown, ready_conditions(working, disk_space))
        observability = WebServer(operators_api, operators, server.timeouts)
        services: dict[str, Service] = {
            "API": api,
            **working.services,
            **_collecting(settings, ports),
        }
        supporting: dict[str, Service] = {
            "observability": observability,
            "fatal errors": fatal_errors,
            "disk space monitor": disk_space,
            "loop lag monitor": LoopLagMonitor(ports.metrics.loop_lag),
        }
        running = _running(settings, listener, operators)

        async def announce() -> None:
            await api.wait_until_listening()
            await observability.wait_until_listening()
            await working.wait_until_settled()
            _log_start(running)
            on_ready(running)
            await shutdown.requested.wait()
            log.info(PROCESS_STOPPING)

        async with asyncio.TaskGroup() as group:
            announcement = group.create_task(announce(), name="ready line")
            await run_together(services, supporting, shutdown)
            announcement.cancel()
    log.info(PROCESS_STOPPED)
    return shutdown.forced.is_set()


def _running(settings: Settings, listener: socket.socket, operators: socket.socket) -> Running:
    return Running(
        api_url=address_of(listener),
        observability_url=address_of(operators),
        data_dir=settings.data_dir.absolute(),
        upstreams=upstream_urls(settings),
        processors=settings.processors,
        is_open=not settings.server.keys,
        on_loopback=is_loopback(settings.server.host),
    )


async def _nothing() -> None:
    """Return immediately: there is nothing to wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchServices:
    """The services that process batches, and their conditions for `/ready`."""

    services: Mapping[str, Service] = field(default_factory=dict)
    conditions: Mapping[str, Callable[[], Condition]] = field(default_factory=dict)
    wait_until_settled: Callable[[], Awaitable[None]] = _nothing


def _processing(
    settings: Settings, ports: Ports, endpoints: Mapping[str, Endpoint]
) -> BatchServices:
    """Return a processor in this process, a supervisor of child processors, or nothing."""
    if settings.processors == 0:
        return BatchServices()
    if settings.processors == 1:
        processor = make_processor(settings, ports, endpoints)
        return BatchServices(
            services={"processor": processor},
            conditions={"storage": partial(storage_condition, processor)},
        )
    supervisor = _supervisor(settings)
    ports.metrics.watch_processors(lambda: supervisor.alive)
    return BatchServices(
        services={"processors": supervisor},
        conditions={"processors": partial(_alive, supervisor)},
        wait_until_settled=supervisor.wait_until_settled,
    )


def _collecting(settings: Settings, ports: Ports) -> dict[str, Service]:
    if not settings.collector.enabled:
        return {}
    return {"collector": make_collector(settings, ports)}


def make_disk_space_monitor(ports: Ports) -> DiskSpaceMonitor:
    """Return the monitor whose result is shown by `/ready`, metrics and the log."""
    log = get_logger("serve")

    def report(reason: str | None) -> None:
        if reason is None:
            log.info(STORAGE_FREED)
        else:
            log.warning(STORAGE_FULL, reason=reason)

    monitor = DiskSpaceMonitor((ports.store.check, ports.blobs.check), report)
    ports.metrics.watch_storage(lambda: monitor.is_full)
    return monitor


def ready_conditions(
    working: BatchServices, disk_space: DiskSpaceMonitor
) -> Mapping[str, Callable[[], Condition]]:
    """Return what `/ready` checks besides ledger and blobs.

    A processor in this process knows first whether its writes succeed; without one, the probe does.
    """
    return {"storage": lambda: disk_space.condition, **working.conditions}


def _supervisor(settings: Settings) -> Supervisor:
    first_line = settings_to_json(settings)
    abort_seconds = settings.processor.claims.lease_seconds + ABORT_SLACK_SECONDS

    async def start(name: str) -> ChildProcess:
        return await start_child([*PROCESSOR_COMMAND, name], first_line)

    return Supervisor(
        [f"processor-{number}" for number in range(1, settings.processors + 1)],
        start,
        _ChildLog(),
        # After its grace time a processor retries its last commit for one lease at most.
        stop_seconds=settings.processor.drain.stop_grace_seconds + abort_seconds,
        abort_seconds=abort_seconds,
    )


def _alive(supervisor: Supervisor) -> Condition:
    """Return how many processors are alive; one is enough to be ready."""
    message = f"{supervisor.alive} of {supervisor.count} processors are alive."
    return Condition(is_ok=supervisor.alive > 0, message=message)


class _ChildLog:
    """Logs when child processors start, end, and do not end in time."""

    def __init__(self) -> None:
        self._log = get_logger("serve")

    def child_started(self, name: str, pid: int, said: str) -> None:
        """Log the process id and the ready line."""
        self._log.info(PROCESSOR_STARTED, process=name, pid=pid, said=said)

    def child_ended(self, name: str, why: str, restart_seconds: float) -> None:
        """Log an end that nobody had requested."""
        self._log.error(PROCESSOR_ENDED, process=name, why=why, restart_seconds=restart_seconds)

    def child_overdue(self, name: str, pid: int, *, killed: bool) -> None:
        """Log that a child did not end in time."""
        self._log.error(PROCESSOR_OVERDUE, process=name, pid=pid, killed=killed)


def _log_start(running: Running) -> None:
    log = get_logger("serve")
    log.info(PROCESS_STARTED, url=running.api_url, data_dir=str(running.data_dir))
    if running.is_open:
        log.warning(OPEN_WITHOUT_KEYS, url=running.api_url)
