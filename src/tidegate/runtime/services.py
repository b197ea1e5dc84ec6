"""Services that run and end together: the first signal stops them, the second aborts them.

Stopping is not cancelling. A service that is stopped takes no more work, finishes or hands back
what it has, and returns; one that is aborted drops its work and returns immediately. When a service
dies, the others are cancelled and the error is raised: half a process is of no use.
"""

import asyncio
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Service(Protocol):
    """Runs until it is stopped. Every method may be called at any time, and twice."""

    async def run(self) -> None:
        """Work until stopped; raise an error that the service can't handle."""

    def stop(self) -> None:
        """Take no more work, and return from `run` when the work in progress is done."""

    def abort(self) -> None:
        """Return from `run` immediately."""


class EndedEarly(RuntimeError):
    """A service returned without being stopped: a bug in Tidegate."""


class ShutdownRequest:
    """Whether this process was asked to end.

    Attributes:
        requested: set by the first request: stop.
        forced: set by the second one: abort.
    """

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.forced = asyncio.Event()

    def request(self) -> None:
        """Count one request: the first stops, the second aborts."""
        if self.requested.is_set():
            self.forced.set()
        self.requested.set()

    @contextmanager
    def listen_to_signals(self) -> Iterator[None]:
        """Count SIGTERM and SIGINT of this process as requests while the block runs."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.request)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)


class FatalErrorService:
    """Ends the process with an error that was reported by code that is no service."""

    def __init__(self) -> None:
        self._error: Exception | None = None
        self._end = asyncio.Event()

    def report(self, error: Exception) -> None:
        """End the process with this error. Only the first report counts."""
        self._error = self._error or error
        self._end.set()

    async def run(self) -> None:
        """Wait until stopped.

        Raises:
            Exception: the error that was reported.
        """
        await self._end.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End, unless an error was reported."""
        self._end.set()

    def abort(self) -> None:
        """End, unless an error was reported."""
        self._end.set()


async def run_together(
    services: Mapping[str, Service], supporting: Mapping[str, Service], shutdown: ShutdownRequest
) -> None:
    """Run services by name until they are stopped; the supporting ones end after all others.

    Raises:
        BaseExceptionGroup: a service died; the others were cancelled.
    """
    async with asyncio.TaskGroup() as group:
        propagation = group.create_task(
            _propagate_shutdown(services, supporting, shutdown), name="stop signals"
        )
        for name, service in supporting.items():
            group.create_task(_watch(name, service, shutdown), name=name)
        main = [
            group.create_task(_watch(name, service, shutdown), name=name)
            for name, service in services.items()
        ]
        if main:
            await asyncio.wait(main)
        for service in supporting.values():
            service.stop()
        propagation.cancel()


async def _watch(name: str, service: Service, shutdown: ShutdownRequest) -> None:
    await service.run()
    if not shutdown.requested.is_set():
        raise EndedEarly(f"The {name} ended without being stopped.")


async def _propagate_shutdown(
    services: Mapping[str, Service], supporting: Mapping[str, Service], shutdown: ShutdownRequest
) -> None:
    await shutdown.requested.wait()
    for service in services.values():
        service.stop()
    await shutdown.forced.wait()
    for service in (*services.values(), *supporting.values()):
        service.abort()
