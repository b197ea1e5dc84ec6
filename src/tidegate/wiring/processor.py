"""A process that works on batches and serves no API; any number may share a data directory."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tidegate.config import Settings
from tidegate.http_server.server import WebServer, address_of, bind
from tidegate.runtime.loop_lag import LoopLagMonitor
from tidegate.runtime.services import Service, ShutdownRequest, run_together
from tidegate.supervisor.control_pipe import listen_to_parent
from tidegate.telemetry.logs import PROCESS_STARTED, PROCESS_STOPPED, PROCESS_STOPPING, get_logger
from tidegate.wiring.context import (
    make_processor,
    open_ports,
    open_upstreams,
    operators_app,
    storage_condition,
    upstream_urls,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processing:
    """What `tidegate processor` prints once it is ready."""

    observability_url: str
    data_dir: Path
    upstreams: tuple[str, ...]


async def run_processor(
    settings: Settings,
    *,
    observability_port: int,
    on_ready: Callable[[Processing], None],
    control_pipe: int | None = None,
) -> bool:
    """Run a processor and its observability in this process until signals end it.

    If `control_pipe` is the descriptor of a pipe from a parent process, that may end it as well.

    Returns whether a second request cut it short.

    Raises:
        SettingsInvalid: the port is taken, the data directory can't be used, a file is missing.
        BaseExceptionGroup: a service died; everything is closed by then.
    """
    shutdown = ShutdownRequest()
    log = get_logger("processor")
    async with AsyncExitStack() as stack:
        stack.enter_context(shutdown.listen_to_signals())
        if control_pipe is not None:
            stack.enter_context(listen_to_parent(shutdown, control_pipe))
        operators = stack.enter_context(
            bind(settings.server.host, observability_port, "--observability-port")
        )
        ports = await open_ports(settings, stack)
        endpoints = open_upstreams(settings, stack)
        processor = make_processor(settings, ports, endpoints)
        observability = WebServer(
            operators_app(ports, shutdown, {"storage": partial(storage_condition, processor)}),
            operators,
            settings.server.timeouts,
        )
        services: dict[str, Service] = {"processor": processor}
        supporting: dict[str, Service] = {
            "observability": observability,
            "loop lag monitor": LoopLagMonitor(ports.metrics.loop_lag),
        }
        processing = Processing(
            observability_url=address_of(operators),
            data_dir=settings.data_dir.absolute(),
            upstreams=upstream_urls(settings),
        )

        async def announce() -> None:
            await observability.wait_until_listening()
            log.info(PROCESS_STARTED, data_dir=str(processing.data_dir))
            on_ready(processing)
            await shutdown.requested.wait()
            log.info(PROCESS_STOPPING)

        async with asyncio.TaskGroup() as group:
            announcement = group.create_task(announce(), name="ready line")
            await run_together(services, supporting, shutdown)
            announcement.cancel()
    log.info(PROCESS_STOPPED)
    return shutdown.forced.is_set()
