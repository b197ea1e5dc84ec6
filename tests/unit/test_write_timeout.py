"""A client that reads slowly is waited for; one that does not read at all is given up in time."""

import asyncio

import pytest
from typing_extensions import override

from tidegate.domain.errors import SettingsInvalid
from tidegate.http_server.limits import ServerTimeouts
from tidegate.http_server.write_timeout import WriteTimeout
from tidegate.testing.loop import run_virtual


class Pipe(asyncio.Transport):
    """A connection of which a test says how many bytes wait."""

    def __init__(self, waiting: int) -> None:
        super().__init__()
        self.waiting = waiting
        self.aborted_at: float | None = None

    @override
    def get_write_buffer_size(self) -> int:
        return self.waiting

    @override
    def abort(self) -> None:
        self.aborted_at = asyncio.get_running_loop().time()


def watched(pipe: Pipe, *changes: tuple[float, int], until: float = 1_000.0) -> None:
    """Watch with a bound of 60 s while the number of waiting bytes changes at these times."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        watch = WriteTimeout(loop, pipe, 60.0)
        watch.start()
        watch.start()
        for at, waiting in changes:
            await asyncio.sleep(at - loop.time())
            pipe.waiting = waiting
            watch.start()
        await asyncio.sleep(until - loop.time())
        watch.stop()
        watch.stop()

    run_virtual(story())


def test_a_reader_that_takes_nothing_is_given_up_at_the_bound() -> None:
    pipe = Pipe(9)
    watched(pipe)
    assert pipe.aborted_at == 60.0


def test_a_reader_that_stops_is_given_up_within_twice_the_bound() -> None:
    pipe = Pipe(9)
    watched(pipe, (59.0, 8))
    assert pipe.aborted_at == 120.0


def test_a_slow_reader_is_waited_for() -> None:
    pipe = Pipe(100)
    watched(pipe, *((50.0 * turn, 100 - turn) for turn in range(1, 19)))
    assert pipe.aborted_at is None


def test_a_reader_that_took_everything_is_not_watched_until_there_is_more() -> None:
    pipe = Pipe(0)
    watched(pipe, (10.0, 5), (20.0, 0), (500.0, 7), until=559.0)
    assert pipe.aborted_at is None
    watched(pipe)
    assert pipe.aborted_at == 60.0


def test_a_bound_of_nothing_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="reply_idle_seconds"):
        ServerTimeouts(reply_idle_seconds=0.0)
