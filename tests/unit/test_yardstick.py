"""The yardstick that the CPU gate holds costs against."""

import gc

import pytest

from testkit.yardstick import Scales, turns, weigh


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
