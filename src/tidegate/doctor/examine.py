"""All checks, in the order in which an operator would fix things."""

from collections.abc import AsyncIterator

from tidegate.config import Settings
from tidegate.doctor.finding import Finding
from tidegate.doctor.ledger import examine_storage
from tidegate.doctor.machine import examine_directory, examine_limits
from tidegate.doctor.ports import examine_ports
from tidegate.doctor.upstreams import examine_upstreams
from tidegate.runtime.clock import Clock


async def examine(settings: Settings, clock: Clock, *, probe: bool) -> AsyncIterator[Finding]:
    """Yield each finding as it is made. Nothing is changed, and no secret is shown."""
    for finding in examine_directory(settings):
        yield finding
    yield examine_limits(settings)
    async for finding in examine_storage(settings, clock):
        yield finding
    async for finding in examine_ports(settings, clock):
        yield finding
    async for finding in examine_upstreams(settings, probe=probe):
        yield finding
