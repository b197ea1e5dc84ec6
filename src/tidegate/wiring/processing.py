"""A process that works on batches and serves no API; any number may share a data directory."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tidegate.config import Settings
from tidegate.runtime.heartbeat import Heartbeat
from tidegate.runtime.orders import heard_from_parent
from tidegate.runtime.services import Service, Stops, run_together
from tidegate.runtime.web import WebServer, address_of, bind
from tidegate.runtime.words import Speaker
from tidegate.telemetry.logs import (
    PROCESS_STARTED,
    PROCESS_STOPPED,
    PROCESS_STOPPING,
    get_logger,
)
from tidegate.wiring.rooms import (
    make_processor,
    open_ports,
    open_upstreams,
    operators_app,
    storage_condition,
    upstream_urls,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processing:
    """What a person wants to know once a processor works."""

    observability_url: str
    data_dir: Path
    upstreams: tuple[str, ...]


async def run_processor(
    settings: Settings,
    *,
    observability_port: int,
    on_ready: Callable[[Processing], None],
    orders: int | None = None,
    words: int | None = None,
) -> bool:
    """Run a processor and its observability in this process until signals end it.

    Where `orders` is the descriptor of a pipe from a parent, that may end it as well; where `words`
    is one of a pipe to it, it is told there whether storage is full.

    Returns whether a second request cut it short.

    Raises:
        SettingsInvalid: the port is taken, the data directory can't be used, a file is missing.
        BaseExceptionGroup: a service died; everything is closed by then.
    """
    stops = Stops()
    log = get_logger("processor")
    async with AsyncExitStack() as stack:
        stack.enter_context(stops.heard_from_signals())
        if orders is not None:
            stack.enter_context(heard_from_parent(stops, orders))
        operators = stack.enter_context(
            bind(settings.server.host, observability_port, "--observability-port")
        )
        ports = await open_ports(settings, stack)
        endpoints = open_upstreams(settings, stack)
        processor = make_processor(settings, ports, endpoints)
        observability = WebServer(
            operators_app(ports, stops, {"storage": partial(storage_condition, processor)}),
            operators,
            settings.server.timeouts,
        )
        services: dict[str, Service] = {"processor": processor}
        supporting: dict[str, Service] = {
            "observability": observability,
            "heartbeat": Heartbeat(ports.metrics.loop_lag),
        }
        speaker = Speaker(lambda: processor.storage_reason, words)
        supporting["words to the parent"] = speaker
        processing = _processing(settings, operators)

        async def tell() -> None:
            await observability.wait_until_listening()
            log.info(PROCESS_STARTED, data_dir=str(processing.data_dir))
            on_ready(processing)
            speaker.begin()
            await stops.asked.wait()
            log.info(PROCESS_STOPPING)

        async with asyncio.TaskGroup() as group:
            teller = group.create_task(tell(), name="ready line")
            await run_together(services, supporting, stops)
            teller.cancel()
    log.info(PROCESS_STOPPED)
    return stops.forced.is_set()


def _processing(settings: Settings, operators: socket.socket) -> Processing:
    return Processing(
        observability_url=address_of(operators),
        data_dir=settings.data_dir.absolute(),
        upstreams=upstream_urls(settings),
    )
