"""The process that serves the API, with a processor in it, or children that process, or neither."""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tidegate.api.observability import Condition
from tidegate.config import Settings, hand_over, is_loopback
from tidegate.processor.endpoints import Endpoint
from tidegate.runtime.children import Child, Children, start_piped
from tidegate.runtime.failure import Failure
from tidegate.runtime.heartbeat import Heartbeat
from tidegate.runtime.services import Service, Stops, run_together
from tidegate.runtime.space import SpaceWatch
from tidegate.runtime.web import WebServer, address_of, bind
from tidegate.runtime.words import words_of
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
from tidegate.wiring.collecting import make_collector
from tidegate.wiring.rooms import (
    Ports,
    api_app,
    make_processor,
    open_ports,
    open_upstreams,
    operators_app,
    storage_condition,
    upstream_urls,
)

# `-P`: nothing that lies in the working directory is taken for a module of ours.
PROCESSOR_COMMAND = (sys.executable, "-P", "-m", "tidegate", "processor", "--supervised")
ABORT_SLACK_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a person wants to know once the process serves."""

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
    stops = Stops()
    log = get_logger("serve")
    async with AsyncExitStack() as stack:
        stack.enter_context(stops.heard_from_signals())
        server = settings.server
        listener = stack.enter_context(bind(server.host, server.port, "server.port"))
        operators = stack.enter_context(
            bind(server.host, server.observability_port, "server.observability_port")
        )
        ports = await open_ports(settings, stack)
        endpoints = open_upstreams(settings, stack)
        failure = Failure()
        api = WebServer(
            api_app(settings, ports, endpoints, failure),
            listener,
            server.timeouts,
            connections_max=settings.api.limits.connections_max,
        )
        working = _processing(settings, ports, endpoints)
        observability = WebServer(
            operators_app(ports, stops, working.conditions), operators, server.timeouts
        )
        services: dict[str, Service] = {
            "API": api,
            **working.services,
            **_collecting(settings, ports),
        }
        supporting: dict[str, Service] = {
            "observability": observability,
            "watch over the storage": failure,
            "watch over the space": watch_space(ports),
            "heartbeat": Heartbeat(ports.metrics.loop_lag),
        }
        running = _running(settings, listener, operators)

        async def tell() -> None:
            await api.wait_until_listening()
            await observability.wait_until_listening()
            await working.wait_until_settled()
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
    """Wait for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Working:
    """What works on batches, and how one sees that it does."""

    services: Mapping[str, Service] = field(default_factory=dict)
    conditions: Mapping[str, Callable[[], Condition]] = field(default_factory=dict)
    wait_until_settled: Callable[[], Awaitable[None]] = _nothing


def _processing(settings: Settings, ports: Ports, endpoints: Mapping[str, Endpoint]) -> _Working:
    """Return what works on batches: one processor in this process, its children, or nothing."""
    if settings.processors == 0:
        return _Working()
    if settings.processors == 1:
        processor = make_processor(settings, ports, endpoints)
        return _Working(
            services={"processor": processor},
            conditions={"storage": partial(storage_condition, processor)},
        )
    heard = Heard()
    children = _children(settings, heard)
    ports.metrics.watch_processors(lambda: children.alive)
    ports.metrics.watch_storage(lambda: heard.storage_reason is not None)
    return _Working(
        services={"processors": children},
        conditions={
            "processors": partial(_alive, children),
            "storage": partial(room_of, heard),
        },
        wait_until_settled=children.wait_until_settled,
    )


def _collecting(settings: Settings, ports: Ports) -> dict[str, Service]:
    if not settings.collector.enabled:
        return {}
    return {"collector": make_collector(settings, ports)}


def watch_space(ports: Ports) -> SpaceWatch:
    """Return what tells metrics and log of a full disk, whoever else writes to it."""
    log = get_logger("serve")

    def tell(reason: str | None) -> None:
        if reason is None:
            log.info(STORAGE_FREED)
        else:
            log.warning(STORAGE_FULL, reason=reason)

    watch = SpaceWatch((ports.store.check, ports.blobs.check), tell)
    ports.metrics.watch_storage(lambda: watch.is_full)
    return watch


def _children(settings: Settings, heard: "Heard") -> Children:
    handed = hand_over(settings)
    abort_seconds = settings.processor.claims.lease_seconds + ABORT_SLACK_SECONDS

    async def start(name: str) -> Child:
        return await start_piped([*PROCESSOR_COMMAND, name], handed)

    return Children(
        [f"processor-{number}" for number in range(1, settings.processors + 1)],
        start,
        heard,
        # A processor insists on its last commit for one lease at most, after its grace time.
        stop_seconds=settings.processor.ends.stop_grace_seconds + abort_seconds,
        abort_seconds=abort_seconds,
    )


def _alive(children: Children) -> Condition:
    """Say how many work. With some of them gone requests can still be served."""
    words = f"{children.alive} of {children.count} processors are alive."
    return Condition(fine=children.alive > 0, words=words)


def room_of(heard: "Heard") -> Condition:
    """Say whether every child finds room to write: one without any sends nothing."""
    reason = heard.storage_reason
    return Condition(fine=reason is None, words=reason or "ok")


class Heard:
    """Logs what becomes of the children, and remembers what they say of themselves."""

    def __init__(self) -> None:
        self._log = get_logger("serve")
        self._full: dict[str, str] = {}

    @property
    def storage_reason(self) -> str | None:
        """Return which child finds no room to write, and why; None while all of them do."""
        return next((f"{name}: {why}" for name, why in sorted(self._full.items())), None)

    def child_started(self, name: str, pid: int, said: str) -> None:
        """Log where a child can be found."""
        self._log.info(PROCESSOR_STARTED, process=name, pid=pid, said=said)

    def child_said(self, name: str, line: bytes) -> None:
        """Remember what a child says of its storage; it logs that itself."""
        words = words_of(line)
        if words is None:
            return
        if words.storage is None:
            self._full.pop(name, None)
        else:
            self._full[name] = words.storage

    def child_ended(self, name: str, why: str, restart_seconds: float) -> None:
        """Log an end that nobody had asked for. What it said of itself is over with it."""
        self._full.pop(name, None)
        self._log.error(PROCESSOR_ENDED, process=name, why=why, restart_seconds=restart_seconds)

    def child_overdue(self, name: str, pid: int, *, killed: bool) -> None:
        """Log that a child hangs, and what is done about it."""
        self._full.pop(name, None)
        self._log.error(PROCESSOR_OVERDUE, process=name, pid=pid, killed=killed)


def _log_start(running: Running) -> None:
    log = get_logger("serve")
    log.info(PROCESS_STARTED, url=running.api_url, data_dir=str(running.data_dir))
    if running.is_open:
        log.warning(OPEN_WITHOUT_KEYS, url=running.api_url)
