"""Children are restarted, stopped and killed in time: fake children in virtual time."""

import asyncio

import pytest

from tidegate.supervisor import supervisor as module
from tidegate.supervisor.supervisor import ChildProcess, Supervisor
from tidegate.testing.loop import in_virtual_time

ABORT_SECONDS = 20.0
STOP_SECONDS = 50.0


class Fake:
    """A child that starts after a second, and ends when the story says so."""

    def __init__(self, pid: int, *, obeys: int = 1, lives_seconds: float | None = None) -> None:
        self.pid = pid
        self.stop_requests = 0
        self.killed_at: float | None = None
        self._obeys = obeys
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if lives_seconds is not None:
            asyncio.get_running_loop().call_later(lives_seconds, self.end, 1)

    def end(self, status: int) -> None:
        if not self._ended.done():
            self._ended.set_result(status)

    async def ready(self) -> str:
        await asyncio.wait([self._ended], timeout=1.0)
        return "" if self._ended.done() else "ready"

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def request_stop(self) -> None:
        self.stop_requests += 1
        if self.stop_requests >= self._obeys:
            self.end(0)

    def kill(self) -> None:
        self.killed_at = asyncio.get_running_loop().time()
        self.end(-9)


class Scene:
    """Starts fakes, and records what is reported of them."""

    def __init__(self, *, obeys: int = 1, lives_seconds: float | None = None) -> None:
        self.told: list[tuple[float, str]] = []
        self.made: list[Fake] = []
        self.refusals = 0
        self._obeys = obeys
        self._lives_seconds = lives_seconds

    async def start(self, name: str) -> ChildProcess:
        if self.refusals:
            self.refusals -= 1
            raise OSError(11, "Resource temporarily unavailable")
        child = Fake(len(self.made), obeys=self._obeys, lives_seconds=self._lives_seconds)
        self.made.append(child)
        return child

    def child_started(self, name: str, pid: int, said: str) -> None:
        self.told.append((now(), f"{name} {said}"))

    def child_ended(self, name: str, why: str, restart_seconds: float) -> None:
        self.told.append((now(), f"{name} {why} {restart_seconds:g}"))

    def child_overdue(self, name: str, pid: int, *, killed: bool) -> None:
        what = "killed" if killed else "aborted"
        self.told.append((now(), f"{name} {pid} is {what}"))

    def children(self, *names: str) -> Supervisor:
        return Supervisor(
            names, self.start, self, stop_seconds=STOP_SECONDS, abort_seconds=ABORT_SECONDS
        )


def now() -> float:
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_children_live_until_they_are_stopped() -> None:
    scene = Scene()
    children = scene.children("a", "b")
    assert (children.count, children.alive) == (2, 0)
    async with asyncio.TaskGroup() as group:
        group.create_task(children.run())
        await children.wait_until_settled()
        assert (now(), children.alive) == (1.0, 2)
        children.stop()
        children.stop()
    assert [child.stop_requests for child in scene.made] == [1, 1]
    assert children.alive == 0
    assert scene.told == [(1.0, "a ready"), (1.0, "b ready")]


@in_virtual_time
async def test_one_that_ends_is_started_again_ever_later() -> None:
    scene = Scene(lives_seconds=2.0)
    children = scene.children("a")
    async with asyncio.TaskGroup() as group:
        group.create_task(children.run())
        await asyncio.sleep(200.0)
        children.stop()
    drain = [words for _, words in scene.told if "exit status" in words]
    backoff = [float(words.split()[-1]) for words in drain]
    assert backoff[:8] == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(("lives", "pause"), [(59.9, 1.0), (60.0, 0.5)])
@in_virtual_time
async def test_one_that_lived_long_is_started_again_soon(lives: float, pause: float) -> None:
    assert module.STABLE_SECONDS == 60.0
    scene = Scene(lives_seconds=lives)
    children = scene.children("a")
    async with asyncio.TaskGroup() as group:
        group.create_task(children.run())
        await asyncio.sleep(2 * lives + 1.0)
        children.stop()
    drain = [words for _, words in scene.told if "exit status" in words]
    assert drain == ["a exit status 1 0.5", f"a exit status 1 {pause:g}"]


@in_virtual_time
async def test_one_that_the_system_does_not_start_is_tried_again() -> None:
    scene = Scene()
    scene.refusals = 1
    children = scene.children("a")
    async with asyncio.TaskGroup() as group:
        group.create_task(children.run())
        await children.wait_until_settled()
        assert (now(), children.alive) == (0.0, 0)
        await asyncio.sleep(2.0)
        assert children.alive == 1
        children.stop()
    why = "it could not be started: Resource temporarily unavailable"
    assert scene.told == [(0.0, f"a {why} 0.5"), (1.5, "a ready")]


@in_virtual_time
async def test_waiting_for_the_first_start_is_bounded() -> None:
    scene = Scene()

    async def never(name: str) -> ChildProcess:
        await asyncio.sleep(1_000.0)
        return await scene.start(name)

    children = Supervisor(
        ["a"], never, scene, stop_seconds=STOP_SECONDS, abort_seconds=ABORT_SECONDS
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(children.run())
        await children.wait_until_settled()
        assert now() == module.START_SECONDS_MAX
        task.cancel()


@in_virtual_time
async def test_a_stop_before_or_during_the_start_reaches_the_child() -> None:
    scene = Scene()
    early = scene.children("a")
    early.stop()
    await early.run()
    assert scene.made == []
    children = scene.children("a")
    async with asyncio.TaskGroup() as group:
        group.create_task(children.run())
        await asyncio.sleep(0.5)
        children.stop()
    assert now() == 0.5
    assert scene.made[0].stop_requests == 1


@in_virtual_time
async def test_a_stop_in_a_pause_ends_it() -> None:
    scene = Scene(lives_seconds=2.0)
    children = scene.children("a")
    async with asyncio.TaskGroup() as group:
        group.create_task(children.run())
        await asyncio.sleep(2.25)
        children.stop()
    assert now() == 2.25
    assert len(scene.made) == 1


@in_virtual_time
async def test_an_abort_is_a_second_order_and_then_an_end() -> None:
    obedient, deaf = Scene(obeys=2), Scene(obeys=99)
    for scene in (obedient, deaf):
        children = scene.children("a")
        began = now()
        async with asyncio.TaskGroup() as group:
            group.create_task(children.run())
            await asyncio.sleep(5.0)
            children.stop()
            await asyncio.sleep(5.0)
            children.abort()
            children.abort()
        assert scene.made[0].stop_requests == 2
        scene.told.append((now() - began, "over"))
    assert obedient.told == [(1.0, "a ready"), (10.0, "over")]
    assert obedient.made[0].killed_at is None
    assert deaf.told[-1] == (10.0 + ABORT_SECONDS, "over")


@pytest.mark.parametrize(
    ("obeys", "told_of", "over_at"),
    [
        (1, [], 5.0),
        (2, [(55.0, "a 0 is aborted")], 55.0),
        (99, [(55.0, "a 0 is aborted"), (75.0, "a 0 is killed")], 75.0),
    ],
)
@in_virtual_time
async def test_one_that_hangs_after_a_stop_is_aborted_and_then_killed(
    obeys: int, told_of: list[tuple[float, str]], over_at: float
) -> None:
    scene = Scene(obeys=obeys)
    children = scene.children("a")
    async with asyncio.TaskGroup() as group:
        group.create_task(children.run())
        await asyncio.sleep(5.0)
        children.stop()
    assert now() == over_at
    assert scene.told == [(1.0, "a ready"), *told_of]
    assert (scene.made[0].killed_at is None) == (over_at < 75.0)


@in_virtual_time
async def test_one_that_hangs_holds_up_no_other_and_is_aborted_once() -> None:
    scene = Scene(obeys=2)
    children = scene.children("a", "b")
    async with asyncio.TaskGroup() as group:
        group.create_task(children.run())
        await asyncio.sleep(5.0)
        children.stop()
        scene.made[0].end(0)
        await asyncio.sleep(10.0)
        children.abort()
        await asyncio.sleep(200.0)
    assert scene.made[1].stop_requests == 2
    assert scene.told == [(1.0, "a ready"), (1.0, "b ready")]


@in_virtual_time
async def test_a_parent_that_dies_takes_its_children_along() -> None:
    for obeys, seconds in ((2, 0.0), (99, module.CANCELLED_SECONDS_MAX)):
        scene = Scene(obeys=obeys)
        children = scene.children("a", "b")
        began = now()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(children.run())
            await asyncio.sleep(5.0)
            task.cancel()
        assert now() - began == 5.0 + seconds
        assert [child.killed_at is None for child in scene.made] == [seconds == 0] * 2
