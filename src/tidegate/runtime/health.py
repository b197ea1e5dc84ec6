"""Conditions that decide whether a process is ready, and the check of free disk space."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tidegate.domain.errors import StorageFull, StoreUnavailable

PROBE_SECONDS = 5.0
PROBE_SECONDS_FULL = 1.0
PROBE_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The state of one part of a process; the process is ready only if every part `is_ok`."""

    is_ok: bool
    message: str


def space_condition(full_reason: str | None) -> Condition:
    """Return the condition of a disk; `full_reason` says why it is full, None if it is not."""
    return Condition(is_ok=full_reason is None, message=full_reason or "ok")


class DiskSpaceMonitor:
    """A service that writes a probe every `PROBE_SECONDS` and reports when the disk is full.

    While the disk is full it probes every `PROBE_SECONDS_FULL`. `report` gets the reason once when
    the disk becomes full, and None once when there is space again. A probe without an answer within
    `PROBE_TIMEOUT_SECONDS` changes nothing.
    """

    def __init__(
        self, probes: Sequence[Callable[[], Awaitable[None]]], report: Callable[[str | None], None]
    ) -> None:
        self._probes = probes
        self._report = report
        self._end = asyncio.Event()
        self._reason: str | None = None

    @property
    def is_full(self) -> bool:
        """Return whether the last probe that was answered found the disk full."""
        return self._reason is not None

    @property
    def condition(self) -> Condition:
        """Return what the last probe that was answered found."""
        return space_condition(self._reason)

    async def run(self) -> None:
        """Probe until stopped.

        Raises:
            StorageBroken: a flush failed; data that was written may be lost.
        """
        while not self._end.is_set():
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
                    reason = await self._probe()
                self._record(reason)
            with suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS_FULL if self.is_full else PROBE_SECONDS):
                    await self._end.wait()

    def stop(self) -> None:
        """End after the current probe."""
        self._end.set()

    def abort(self) -> None:
        """End after the current probe, which has a time limit."""
        self._end.set()

    async def _probe(self) -> str | None:
        """Return why the disk is full; None if every probe could write."""
        try:
            for probe in self._probes:
                await probe()
        except StorageFull as error:
            return str(error)
        return None

    def _record(self, reason: str | None) -> None:
        was_full, self._reason = self.is_full, reason
        if was_full != self.is_full:
            self._report(reason)
