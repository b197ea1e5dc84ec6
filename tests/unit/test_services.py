"""Services end together, in good order, after any of them ends."""

import asyncio
import os
import signal

import pytest

from tidegate.runtime.services import EndedEarly, Service, ShutdownRequest, run_together


class Recorder:
    """Runs until stopped, and writes what happens into a list that it shares with others."""

    def __init__(self, name: str, log: list[str], *, obeys: bool = True) -> None:
        self.started = asyncio.Event()
        self._name = name
        self._log = log
        self._obeys = obeys
        self._end = asyncio.Event()

    async def run(self) -> None:
        self.started.set()
        try:
            await self._end.wait()
        except asyncio.CancelledError:
            self._log.append(f"{self._name} cancelled")
            raise
        self._log.append(f"{self._name} ended")

    def stop(self) -> None:
        if self._obeys:
            self._end.set()

    def abort(self) -> None:
        self._log.append(f"{self._name} aborted")
        self._end.set()


class Dying:
    """Dies as soon as it runs."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def run(self) -> None:
        raise self._error

    def stop(self) -> None:
        """Nothing is left to stop."""

    def abort(self) -> None:
        """Nothing is left to abort."""


class Returning:
    """Ends although nobody asked."""

    async def run(self) -> None:
        return

    def stop(self) -> None:
        """Nothing is left to stop."""

    def abort(self) -> None:
        """Nothing is left to abort."""


async def test_the_first_stop_ends_all_and_the_supporting_ones_last() -> None:
    log: list[str] = []
    stops = ShutdownRequest()
    main, support = Recorder("main", log), Recorder("support", log)
    async with asyncio.TaskGroup() as group:
        group.create_task(run_together({"main": main}, {"support": support}, stops))
        await support.started.wait()
        stops.request()
    assert log == ["main ended", "support ended"]
    assert not stops.forced.is_set()


async def test_the_second_stop_aborts() -> None:
    log: list[str] = []
    stops = ShutdownRequest()
    slow = Recorder("slow", log, obeys=False)
    async with asyncio.TaskGroup() as group:
        group.create_task(run_together({"slow": slow}, {}, stops))
        await slow.started.wait()
        stops.request()
        stops.request()
    assert log == ["slow aborted", "slow ended"]
    assert stops.forced.is_set()


async def test_a_stop_before_the_start_ends_all() -> None:
    log: list[str] = []
    stops = ShutdownRequest()
    stops.request()
    await run_together({"main": Recorder("main", log)}, {}, stops)
    assert log == ["main ended"]


@pytest.mark.parametrize(
    ("service", "kind"), [(Dying(OSError("disk")), OSError), (Returning(), EndedEarly)]
)
async def test_a_dead_service_takes_the_others_along(
    service: Service, kind: type[Exception]
) -> None:
    log: list[str] = []
    with pytest.raises(ExceptionGroup) as caught:
        await run_together(
            {"alive": Recorder("alive", log), "dead": service},
            {"support": Recorder("support", log)},
            ShutdownRequest(),
        )
    assert [type(error) for error in caught.value.exceptions] == [kind]
    assert sorted(log) == ["alive cancelled", "support cancelled"]


async def test_signals_of_the_process_are_counted() -> None:
    stops = ShutdownRequest()
    before = signal.getsignal(signal.SIGTERM)
    with stops.listen_to_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        await stops.requested.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await stops.forced.wait()
    assert signal.getsignal(signal.SIGTERM) == before
