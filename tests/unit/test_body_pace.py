"""How slowly a client may send a body, in virtual time."""

import asyncio

import pytest
from starlette.types import Message

from tidegate.api.body import read_chunks
from tidegate.api.errors import ClientTooSlow
from tidegate.api.settings import Limits
from tidegate.testing.loop import run_virtual

LIMITS = Limits(body_idle_seconds=60.0, body_bytes_per_second_min=500)


def sent(pieces: list[tuple[float, int]], *, busy_seconds: float = 0.0) -> int:
    """Take in pieces with these pauses in seconds before them; return how many bytes came.

    Taking each of them in keeps us busy for `busy_seconds`.
    """

    async def story() -> int:
        waiting = list(pieces)

        async def receive() -> Message:
            seconds, size = waiting.pop(0)
            await asyncio.sleep(seconds)
            return {"type": "http.request", "body": bytes(size), "more_body": bool(waiting)}

        total = 0
        async for piece in read_chunks(receive, declared=None, bytes_max=10**9, limits=LIMITS):
            total += len(piece)
            await asyncio.sleep(busy_seconds)
        return total

    return run_virtual(story())


def test_a_byte_now_and_then_is_not_enough() -> None:
    with pytest.raises(ClientTooSlow, match="500 bytes a second"):
        sent([(10.0, 1)] * 100)


def test_a_client_that_keeps_the_pace_may_send_for_hours() -> None:
    assert sent([(1.0, 500)] * 10_000) == 5_000_000


def test_slow_moments_up_to_the_bound_are_borne() -> None:
    at = [(59.5, 250), (0.5, 0), (1.0, 500)]
    assert sent([*at, (0.0, 1)]) == 751
    with pytest.raises(ClientTooSlow):
        sent([(59.5, 0), (1.0, 249), (0.0, 1)])


def test_the_last_piece_is_never_too_late() -> None:
    assert sent([(59.0, 0), (59.0, 1)]) == 1


def test_time_in_which_we_are_busy_is_not_the_clients() -> None:
    assert sent([(0.1, 1)] * 100, busy_seconds=100.0) == 100


def test_silence_is_reported_as_such() -> None:
    with pytest.raises(ClientTooSlow, match="stopped arriving for 60 s"):
        sent([(61.0, 1)])
