"""One round of the collector, in a process that does nothing else."""

from contextlib import AsyncExitStack

from tidegate.collector.duty import CollectorContext
from tidegate.collector.report import Report
from tidegate.collector.service import Collector
from tidegate.config import Settings
from tidegate.config.kinds import MEMORY, SQLITE
from tidegate.domain.errors import SettingsInvalid
from tidegate.wiring.backends import LEDGER_FILE
from tidegate.wiring.context import Ports, make_ender, open_ports


def make_collector(settings: Settings, ports: Ports) -> Collector:
    """Return a collector over what the rooms of the process share."""
    return Collector(
        settings.collector,
        CollectorContext(
            store=ports.store,
            blobs=ports.blobs,
            clock=ports.clock,
            ids=ports.ids,
            orphan_finalizer=make_ender(settings, ports),
            observer=ports.metrics.collector,
        ),
    )


async def run_collection(settings: Settings, *, dry: bool) -> Report:
    """Do one full round, or only look at what it would do. Servers may run beside it.

    Raises:
        SettingsInvalid: ledger or blobs are in memory, or there is no ledger.
        StorageBroken: the disk can't be trusted.
        StoreUnavailable: the ledger does not open.
    """
    if MEMORY in {settings.store.kind, settings.blobs.kind}:
        raise SettingsInvalid(
            "What a server keeps in memory ends with its process: gc needs a store.kind and a "
            "blobs.kind that are durable, such as sqlite and filesystem."
        )
    ledger = settings.data_dir / LEDGER_FILE
    if settings.store.kind == SQLITE and not ledger.is_file():
        raise SettingsInvalid(
            f"There is no ledger at {ledger}: set data_dir to the directory of a server."
        )
    async with AsyncExitStack() as stack:
        ports = await open_ports(settings, stack, check=not dry)
        collector = make_collector(settings, ports)
        return await (collector.preview() if dry else collector.collect())
