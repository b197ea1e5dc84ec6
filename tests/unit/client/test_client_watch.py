"""Watching: how fast it goes, when it ends, and what a silent server does to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from testkit.servers.handler import HandlerServer
from testkit.users.client import client_of
from tidegate.client.errors import ServerRefused, ServerUnreachable
from tidegate.client.objects import BatchCounts, BatchObject
from tidegate.client.watch import (
    POLL_SECONDS_MIN,
    RATE_SECONDS,
    UNANSWERED_MAX,
    RateTracker,
    Watch,
    WatchState,
)
from tidegate.domain.errors import TimedOut
from tidegate.upstreams.base import Call, Reply

HEADERS = {"content-type": "application/json"}


def batch(done: int, total: int = 100, status: str = "in_progress") -> BatchObject:
    counts = BatchCounts(total=total, completed=done)
    return BatchObject(id="batch_a", status=status, request_counts=counts)


def test_the_rate_is_taken_over_the_last_seconds() -> None:
    tracker = RateTracker()
    assert tracker.update(batch(0), b"", 0.0).rate is None
    half = tracker.update(batch(20), b"", 10.0)
    assert (half.rate, half.seconds_left) == (2.0, 40.0)
    # It stood still for longer than the span: what came before no longer counts.
    tracker.update(batch(20), b"", 10.0 + RATE_SECONDS)
    still = tracker.update(batch(20), b"", 11.0 + RATE_SECONDS)
    assert (still.rate, still.seconds_left) == (0.0, None)
    ended = tracker.update(batch(100, status="completed"), b"", 50.0)
    assert ended.rate is None


def test_counts_that_run_back_give_no_rate() -> None:
    tracker = RateTracker()
    tracker.update(batch(50), b"", 0.0)
    assert tracker.update(batch(40), b"", 1.0).rate is None


def test_before_it_is_planned_nothing_is_left_to_tell() -> None:
    tracker = RateTracker()
    tracker.update(batch(0, 0, "validating"), b"", 0.0)
    assert tracker.update(batch(0, 0, "validating"), b"", 1.0).seconds_left is None


class Stage:
    """A server whose batches go one step on with each question about them."""

    def __init__(self, plays: Mapping[str, Sequence[str]]) -> None:
        self.plays = {name: list(statuses) for name, statuses in plays.items()}
        self.silent = 0

    async def answer(self, call: Call) -> Reply:
        if self.silent:
            self.silent -= 1
            raise TimedOut("Silence.", phase="total")
        name = call.path.partition("?")[0].removeprefix("/v1/batches").strip("/")
        if not name:
            return self._reply({"data": [self._next(name) for name in reversed(self.plays)]})
        if name not in self.plays:
            return self._reply({"error": {"message": "No such batch."}}, 404)
        return self._reply(self._next(name))

    def _next(self, name: str) -> dict[str, object]:
        statuses = self.plays[name]
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        return {"id": name, "status": status}

    def _reply(self, body: Mapping[str, object], status: int = 200) -> Reply:
        return Reply(status=status, headers=HEADERS, body=json.dumps(body).encode())


@asynccontextmanager
async def watching(
    stage: Stage, *batch_ids: str, timeout_seconds: float = 5.0
) -> AsyncIterator[Watch]:
    async with (
        HandlerServer(stage.answer) as served,
        client_of(served.url, timeout_seconds=timeout_seconds) as server,
    ):
        yield Watch(server, batch_ids, every_seconds=POLL_SECONDS_MIN)


def statuses(state: WatchState) -> list[str]:
    return [item.batch.status for item in state.batches]


async def test_it_ends_when_all_have_ended() -> None:
    stage = Stage({"a": ["validating", "completed"], "b": ["in_progress", "x", "x", "failed"]})
    looks: list[WatchState] = []
    async with watching(stage, "a", "b", "a") as watch:
        ended = await watch.until_all_end(looks.append)
    assert [(item.id, item.status) for item in ended] == [("a", "completed"), ("b", "failed")]
    assert statuses(looks[0]) == ["validating", "in_progress"]
    assert statuses(looks[-1]) == ["completed", "failed"]


async def test_without_names_it_follows_those_that_live_and_those_that_come() -> None:
    stage = Stage({"old": ["completed"], "a": ["in_progress"] * 3 + ["completed"]})
    met: list[list[str]] = []

    def look_at(state: WatchState) -> None:
        met.append([item.batch.id for item in state.batches])
        stage.plays.setdefault("new", ["in_progress", "in_progress", "cancelled"])

    async with watching(stage) as watch:
        ended = await watch.until_all_end(look_at)
    assert met[0] == ["a"]
    assert [(item.id, item.status) for item in ended] == [("a", "completed"), ("new", "cancelled")]


async def test_with_nothing_alive_it_ends_at_once() -> None:
    async with watching(Stage({"old": ["completed"]})) as watch:
        assert await watch.until_all_end(lambda look: None) == []


async def test_a_silent_server_is_reported_and_asked_again() -> None:
    stage = Stage({"a": ["in_progress", "in_progress", "completed"]})
    looks: list[WatchState] = []

    def look_at(state: WatchState) -> None:
        looks.append(state)
        if len(looks) == 1:
            stage.silent = 2

    async with watching(stage, "a", timeout_seconds=0.2) as watch:
        ended = await watch.until_all_end(look_at)
    assert [look.no_answer is not None for look in looks[:4]] == [False, True, True, False]
    assert statuses(looks[1]) == ["in_progress"]
    assert ended[0].status == "completed"


@pytest.mark.parametrize("spoken_before", [0, 1])
async def test_silence_has_an_end(spoken_before: int) -> None:
    stage = Stage({"a": ["in_progress"]})
    looks: list[WatchState] = []

    def look_at(state: WatchState) -> None:
        looks.append(state)
        stage.silent = 100

    if not spoken_before:
        stage.silent = 100
    async with watching(stage, "a", timeout_seconds=0.05) as watch:
        with pytest.raises(ServerUnreachable):
            await watch.until_all_end(look_at)
    assert len(looks) == (UNANSWERED_MAX if spoken_before else 0)


async def test_an_unknown_batch_ends_it_with_the_servers_words() -> None:
    async with watching(Stage({}), "a") as watch:
        with pytest.raises(ServerRefused, match="No such batch"):
            await watch.until_all_end(lambda look: None)


async def test_it_can_be_cancelled_between_looks() -> None:
    seen = asyncio.Event()
    async with watching(Stage({"a": ["in_progress"]}), "a") as watch, asyncio.TaskGroup() as group:
        task = group.create_task(watch.until_all_end(lambda look: seen.set()), name="watch")
        await seen.wait()
        task.cancel()
    assert task.cancelled()
