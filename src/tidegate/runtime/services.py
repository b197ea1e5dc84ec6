"""Services that live and end together: the first signal stops them, the second aborts them.

Stopping is not cancelling. A service that is stopped takes no more work and ends by itself when it
has put its work down; one that is aborted drops what it holds and ends at once. When one of them
dies, the others are cancelled and the error goes to whoever ran them: half a process helps nobody.
"""

import asyncio
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Service(Protocol):
    """Something that runs until it is told to end. Each method may be called at any time, twice."""

    async def run(self) -> None:
        """Work until stopped; an error that it can't mend ends it."""
        ...

    def stop(self) -> None:
        """Take no more work, and end in good order."""
        ...

    def abort(self) -> None:
        """End now."""
        ...


class EndedEarly(RuntimeError):
    """A service returned although nobody had stopped it: a bug of ours."""


class Stops:
    """How often the process was asked to end."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.forced = asyncio.Event()

    def ask(self) -> None:
        """Count one request to end: the first asks, the second forces."""
        if self.asked.is_set():
            self.forced.set()
        self.asked.set()

    @contextmanager
    def heard_from_signals(self) -> Iterator[None]:
        """Count SIGTERM and SIGINT of this process while the block runs."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.ask)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)


async def run_together(
    services: Mapping[str, Service], supporting: Mapping[str, Service], stops: Stops
) -> None:
    """Run services by name until they are stopped; the supporting ones end after all others.

    Raises:
        BaseExceptionGroup: a service died; the others were cancelled.
    """
    async with asyncio.TaskGroup() as group:
        obedience = group.create_task(_obey(services, supporting, stops), name="stop signals")
        for name, service in supporting.items():
            group.create_task(_watch(name, service, stops), name=name)
        main = [
            group.create_task(_watch(name, service, stops), name=name)
            for name, service in services.items()
        ]
        if main:
            await asyncio.wait(main)
        for service in supporting.values():
            service.stop()
        obedience.cancel()


async def _watch(name: str, service: Service, stops: Stops) -> None:
    await service.run()
    if not stops.asked.is_set():
        raise EndedEarly(f"The {name} ended although nobody had stopped it.")


async def _obey(
    services: Mapping[str, Service], supporting: Mapping[str, Service], stops: Stops
) -> None:
    await stops.asked.wait()
    for service in services.values():
        service.stop()
    await stops.forced.wait()
    for service in (*services.values(), *supporting.values()):
        service.abort()
