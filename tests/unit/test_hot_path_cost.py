"""What a line may cost in CPU time, held against a yardstick that runs in the same process.

A bound lies about a third above what was measured when it was last set. Whoever makes the path
cheaper lowers it; nobody raises it without a word of why in the commit.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
from typing_extensions import override

from testkit.null_blobs import Drain
from testkit.scenarios.journey import Roads, lines_of, take_in, travel
from testkit.yardstick import ROUNDS_MIN, Scales, turns, weigh
from tidegate.blobs.memory import MemoryBlobs
from tidegate.testing.loop import run_virtual
from tidegate.upstreams.base import Call, PendingCall, Receiver, Reply, Upstream

LINES = 1_000

# Turns of the yardstick for one line: measured were 7.9 and 3.7 to 4.8.
DISPATCH_TURNS_MAX = 10.5
PLANNING_TURNS_MAX = 5.6
# For one megabyte of an upload: measured were 270.
UPLOAD_TURNS_MAX = 350.0

BOUNDS = {"planning": PLANNING_TURNS_MAX, "dispatch": DISPATCH_TURNS_MAX}
SLACK = 1.3
DEARER = 2.5
# So many turns make a path that costs what it did when its bound was set so dear.
ADDED = (DEARER - 1.0) / SLACK
# Most of an upload is memory that is copied, and what that costs depends on where the heap ends:
# what is added passes the bound by itself, also where few turns at once find the caches warm.
ADDED_TO_UPLOADS = 2.0


def measured(make_roads: Callable[[], Roads]) -> Callable[[], dict[str, float]]:
    lines = lines_of(LINES)
    return lambda: run_virtual(travel(lines, make_roads())).costs_ns


def uploaded(make_blobs: Callable[[], Drain]) -> Callable[[], dict[str, float]]:
    data = b"".join(lines_of(LINES))
    return lambda: {"upload": run_virtual(take_in(data, make_blobs())) / len(data) * 1e6}


@dataclass
class Dearer(Upstream):
    """A door that takes so many turns of the yardstick more for each call."""

    inner: Upstream
    turns: int

    @override
    def begin(self, call: Call, receiver: Receiver) -> PendingCall | None:
        turns(self.turns)
        return self.inner.begin(call, receiver)

    @override
    async def send(self, call: Call) -> Reply:
        return await self.inner.send(call)

    @override
    async def aclose(self) -> None:
        await self.inner.aclose()


class DearerBlobs(MemoryBlobs):
    """Blobs of which each byte that is read takes so many turns more."""

    def __init__(self, turns_for_each_byte: float) -> None:
        super().__init__(appends=True)
        self._turns_for_each_byte = turns_for_each_byte

    @override
    async def read(self, name: str, offset: int, length: int) -> bytes:
        data = await super().read(name, offset, length)
        turns(round(len(data) * self._turns_for_each_byte))
        return data


def test_a_line_costs_no_more_than_it_did() -> None:
    costs = weigh(measured(Roads), BOUNDS)
    assert costs["dispatch"] <= DISPATCH_TURNS_MAX
    assert costs["planning"] <= PLANNING_TURNS_MAX


def test_an_upload_costs_no_more_than_it_did() -> None:
    costs = weigh(uploaded(Drain), {"upload": UPLOAD_TURNS_MAX})
    assert costs["upload"] <= UPLOAD_TURNS_MAX


def test_a_dearer_dispatch_is_found() -> None:
    added = round(DISPATCH_TURNS_MAX * ADDED)
    make_roads = partial(Roads, door=partial(Dearer, turns=added))
    costs = weigh(measured(make_roads), BOUNDS, rounds_max=ROUNDS_MIN)
    assert costs["dispatch"] > DISPATCH_TURNS_MAX


def test_a_dearer_planning_is_found() -> None:
    added = PLANNING_TURNS_MAX * ADDED / len(lines_of(1)[0])
    make_roads = partial(Roads, make_blobs=partial(DearerBlobs, added))
    costs = weigh(measured(make_roads), BOUNDS, rounds_max=ROUNDS_MIN)
    assert costs["planning"] > PLANNING_TURNS_MAX


def test_a_dearer_upload_is_found() -> None:
    added = UPLOAD_TURNS_MAX * ADDED_TO_UPLOADS / 1e6

    def think(piece: bytes) -> int:
        return turns(round(len(piece) * added))

    costs = weigh(
        uploaded(partial(Drain, think)), {"upload": UPLOAD_TURNS_MAX}, rounds_max=ROUNDS_MIN
    )
    assert costs["upload"] > UPLOAD_TURNS_MAX


# The yardstick itself


def test_the_least_of_all_rounds_counts() -> None:
    costs = iter([9e9, 5e9, 7e9])
    scales = Scales()
    for _ in range(3):
        scales.round(lambda: {"item": next(costs)})
    other = Scales()
    other.round(lambda: {"item": 5e9, "ten": 50e9})
    assert other.ratios["ten"] == pytest.approx(10 * other.ratios["item"])
    assert scales.ratios["item"] == pytest.approx(other.ratios["item"], rel=0.9)
    assert scales.rounds == 3


@pytest.mark.parametrize(("good_from", "rounds"), [(0, 3), (3, 3), (4, 4), (7, 7), (8, 7)], ids=str)
def test_what_is_too_dear_is_measured_again_a_bounded_number_of_times(
    good_from: int, rounds: int
) -> None:
    asked = 0

    def measure() -> dict[str, float]:
        nonlocal asked
        asked += 1
        return {"item": 1.0 if asked >= good_from else 1e12}

    costs = weigh(measure, {"item": 100.0}, rounds_min=3, rounds_max=7)
    assert asked == rounds
    assert (costs["item"] <= 100.0) == (good_from <= 7)


def test_the_collector_of_cycles_is_out_while_we_measure_and_back_afterwards() -> None:
    assert gc.isenabled()
    seen: list[bool] = []

    def measure() -> dict[str, float]:
        seen.append(gc.isenabled())
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        Scales().round(measure)
    assert seen == [False]
    assert gc.isenabled()


def test_a_turn_does_all_of_its_work() -> None:
    assert turns(0) == 0
    # What the head says, one name, and the bytes of one parcel with its body.
    frame = len(b'{"name":"parcel_0_open","body":""}\n')
    assert turns(1) == 27 + 1 + frame + 1_024
    assert turns(10) == 10 * turns(1)
