"""No request is sent once the window has closed, in no state of the lines."""

import asyncio
import random
from collections import defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from tidegate.domain.batch import Batch, Status
from tidegate.domain.retry import Retry
from tidegate.processor.dispatch.open_batch import OpenBatch
from tidegate.processor.settings import InFlightLimits, Settings
from tidegate.testing.deployment import Deployment, ok, request_line
from tidegate.testing.loop import run_virtual
from tidegate.upstreams.base import Call, Reply

REPLY_SECONDS_MAX = 0.3
CLOCK_GRAIN_SECONDS = 1e-6  # Unix seconds as a float are no finer.
# A poll interval finds that the window has closed; the lines in flight land; commits follow.
ENDS_WITHIN_SECONDS = 0.25 + REPLY_SECONDS_MAX + 1.0


class Server:
    """A model server that is often wrong; it notes when which line came."""

    def __init__(self, rng: random.Random, *, wrong: float) -> None:
        self._chance = rng
        self._wrong = wrong
        self.sent: dict[str, list[float]] = defaultdict(list)

    async def answer(self, call: Call) -> Reply:
        self.sent[call.headers["x-request-id"]].append(asyncio.get_running_loop().time())
        await asyncio.sleep(self._chance.uniform(0.0, REPLY_SECONDS_MAX))
        if self._chance.random() >= self._wrong:
            return ok()
        status, after = self._chance.choice([(500, ""), (500, "9"), (429, "1"), (429, "9999")])
        headers = {"retry-after": after} if after else {}
        return Reply(status=status, headers=headers, body=b"{}")


def ended(
    seed: int, lines: int, window_seconds: float, retry: Retry, *, wrong: float
) -> tuple[Batch, Server, float]:
    """Run one batch to its end; return it with its server and the instant of its deadline."""

    async def story() -> tuple[Batch, Server, float]:
        world = Deployment.make()
        server = Server(random.Random(seed), wrong=wrong)
        batch = await world.submit(
            [request_line(f"line-{number}") for number in range(lines)],
            window_seconds=window_seconds,
        )
        chosen = Settings(limits=InFlightLimits(in_flight_max=4), retry=retry)
        async with world.processor(server.answer, chosen):
            batch = await world.end_of(batch.id, within_seconds=window_seconds + 60.0)
        results = await world.results(batch)
        assert len(results) == batch.counts.total, "a line without a result"
        return batch, server, window_seconds

    return run_virtual(story())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1_000_000),
    lines=st.integers(1, 60),
    window_seconds=st.floats(0.5, 20.0),
    delays=st.tuples(st.floats(0.01, 5.0), st.floats(0.01, 40.0)).map(sorted),
    attempts_max=st.integers(1, 6),
    wrong=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_lines_are_tried_within_bounds_and_never_past_the_deadline(
    seed: int,
    lines: int,
    window_seconds: float,
    delays: list[float],
    attempts_max: int,
    wrong: float,
) -> None:
    least, most = delays
    retry = Retry(attempts_max=attempts_max, delay_seconds_min=least, delay_seconds_max=most)
    batch, server, deadline = ended(seed, lines, window_seconds, retry, wrong=wrong)
    assert batch.status in {Status.COMPLETED, Status.EXPIRED}
    for times in server.sent.values():
        assert times[-1] < deadline + CLOCK_GRAIN_SECONDS, (
            "a request was sent when the window had closed"
        )
        backoff = [later - earlier for earlier, later in pairwise(times)]
        assert all(pause >= least / 2 for pause in backoff), "tried again at once"
    at = batch.completed_at or batch.expired_at
    assert at is not None
    assert at <= batch.expires_at + ENDS_WITHIN_SECONDS, "a sleeping line held up the end"


def test_without_a_look_at_the_deadline_requests_are_sent_past_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def blind(self: OpenBatch, now: float) -> None:
        return

    monkeypatch.setattr(OpenBatch, "update_deadline", blind)
    _, server, deadline = ended(0, 600, 3.1, Retry(), wrong=0.0)
    assert any(times[-1] >= deadline for times in server.sent.values())
