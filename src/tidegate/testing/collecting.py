"""A collector beside a deployment in memory, and what it told while it worked."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from typing_extensions import override

from tidegate.collector.duty import Tools
from tidegate.collector.observer import Observer
from tidegate.collector.report import Damage
from tidegate.collector.service import Collector
from tidegate.collector.settings import Settings
from tidegate.domain.errors import TidegateError
from tidegate.domain.file import Part
from tidegate.testing.deployment import TENANT, Deployment

DAY = 86_400.0
HOUR = 3_600.0


class Told(Observer):
    """Remembers what a person would be told."""

    def __init__(self) -> None:
        self.damages: list[Damage] = []
        self.strangers: list[str] = []
        self.overdue_batches: list[str] = []
        self.errors: list[TidegateError] = []
        self.drifting: list[int] = []
        self.rerun: dict[str, int] = {}

    @override
    def damaged(self, damage: Damage) -> None:
        self.damages.append(damage)

    @override
    def strange(self, name: str) -> None:
        self.strangers.append(name)

    @override
    def overdue(self, batch_ids: Sequence[str]) -> None:
        self.overdue_batches.extend(batch_ids)

    @override
    def held_up(self, error: TidegateError) -> None:
        self.errors.append(error)

    @override
    def drift(self, blobs: int) -> None:
        self.drifting.append(blobs)

    @override
    def mended(self, batch_id: str, lines: int) -> None:
        self.rerun[batch_id] = self.rerun.get(batch_id, 0) + lines


def collector_of(
    deployment: Deployment, settings: Settings | None = None, observer: Observer | None = None
) -> Collector:
    """Return a collector of its own over the deployment's ledger and blobs."""
    return Collector(
        settings or Settings(),
        Tools(
            store=deployment.store,
            blobs=deployment.blobs,
            clock=deployment.clock,
            ids=deployment.ids,
            observer=observer or Observer(),
        ),
    )


@asynccontextmanager
async def collecting(
    deployment: Deployment, settings: Settings | None = None, observer: Observer | None = None
) -> AsyncIterator[Collector]:
    """Run a collector beside the block; it is stopped at the end."""
    collector = collector_of(deployment, settings, observer)
    async with asyncio.TaskGroup() as group:
        group.create_task(collector.run(), name="collector")
        try:
            yield collector
        finally:
            collector.stop()


async def parts_of(deployment: Deployment, file_id: str) -> tuple[Part, ...]:
    """Return the parts of a file that the usual tenant sees."""
    return (await deployment.store.get_parts(TENANT, file_id))[1]
