import asyncio
import random

import pytest
from hypothesis import given, strategies as st

from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.batch import Problem
from tidegate.domain.errors import ClaimLost, SettingsInvalid, StorageFull, StoreUnavailable
from tidegate.planning.problems import FirstProblems
from tidegate.planning.settings import Planning
from tidegate.processor.dispatch.open_batch import COMMIT_DUE_SHARE, Budget
from tidegate.processor.observer import NullObserver
from tidegate.processor.settings import Claims, Commits, Drain, InFlightLimits, SandboxLimits
from tidegate.processor.wakeups import Wakeups
from tidegate.processor.write_gate import WriteGate
from tidegate.stores.memory import MemoryStore
from tidegate.testing.contract.stores import ManualClock
from tidegate.testing.loop import Deadlock, run_virtual
from tidegate.wire.plan_format import PlanLine, pack, unpack_all

LINES = st.lists(
    st.builds(PlanLine, st.integers(0, 2**32 - 1), st.binary(max_size=20), st.binary(max_size=20))
)


@given(lines=LINES)
def test_a_plan_is_read_as_it_was_written(lines: list[PlanLine]) -> None:
    data = b"".join(pack(line.number, line.custom_id, line.body) for line in lines)
    assert list(unpack_all(data)) == lines


def test_a_plan_that_is_cut_off_is_never_run() -> None:
    with pytest.raises(AssertionError):
        list(unpack_all(pack(1, b'"a"', b"{}")[:-1]))


@given(numbers=st.permutations(range(1, 40)), errors_max=st.integers(1, 50))
def test_the_first_problems_are_kept_for_any_order_of_arrival(
    numbers: list[int], errors_max: int
) -> None:
    problems = FirstProblems(errors_max)
    for number in numbers:
        problems.add(Problem(code="x", message="y", line=number))
        assert len(problems._kept) < 2 * errors_max + 1
    listed = problems.listed()
    assert [p.line for p in listed if p.line] == list(range(1, 40))[:errors_max]
    assert (listed[-1].code == "too_many_errors") == (errors_max < 39)


def storage() -> WriteGate:
    clock = ManualClock()
    return WriteGate(
        MemoryStore(clock), MemoryBlobs(appends=True), NullObserver(), Wakeups(), random.Random(0)
    )


def test_a_question_is_repeated_until_it_is_answered() -> None:
    asked = 0

    async def ask() -> str:
        nonlocal asked
        asked += 1
        if asked < 4:
            raise (StoreUnavailable("away") if asked % 2 else StorageFull("full"))
        return "answer"

    assert run_virtual(storage().retry_until_answered(ask)) == "answer"
    assert asked == 4


def test_a_refusal_is_an_answer() -> None:
    async def ask() -> None:
        raise ClaimLost("gone")

    with pytest.raises(ClaimLost):
        run_virtual(storage().retry_until_answered(ask))


def test_the_budget_takes_what_fits_and_one_larger_thing_alone() -> None:
    budget = Budget(100, 2, Wakeups())
    assert budget.has_room_for(100)
    assert budget.has_room_for(1_000), "nothing else is held"
    budget.bytes_held = 1
    assert budget.has_room_for(99)
    assert not budget.has_room_for(100)
    budget.lines_held = 2
    assert not budget.has_room_for(1)


def test_a_commit_is_due_before_the_budget_is_full_and_makes_room() -> None:
    heard: list[int] = []
    wakeups = Wakeups()
    gathered = int(8 * COMMIT_DUE_SHARE)
    before = Budget(100, 8, wakeups, lines_held=gathered - 1)
    assert not before.is_commit_due
    cut = Budget(100, 8, wakeups, lines_held=8, lines_committing=8 - gathered + 1)
    assert not cut.is_commit_due, "what is being written waits no more"
    budget = Budget(100, 8, wakeups, bytes_held=30, lines_held=gathered)
    assert budget.is_commit_due
    assert not budget.is_full_of_lines
    wakeups.call_on_room(lambda: heard.append(budget.lines_held))
    budget.lines_committing = gathered
    budget.release(gathered, 30)
    assert (heard, budget.lines_committing, budget.bytes_held) == ([0], 0, 0)


def test_a_program_that_can_never_go_on_is_reported() -> None:
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run_virtual(wait_for_ever())


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Claims, {"lease_seconds": 0.0}),
        (Claims, {"lease_seconds": 0.6, "poll_seconds": 0.25}),
        (InFlightLimits, {"open_shards_max": 0}),
        (InFlightLimits, {"in_flight_max": 0}),
        (InFlightLimits, {"in_flight_bytes_max": 0}),
        (InFlightLimits, {"uncommitted_lines_max": 0}),
        (SandboxLimits, {"count_max": 0}),
        (SandboxLimits, {"start_seconds": 0.0}),
        (SandboxLimits, {"memory_bytes_max": 2**28 - 1}),
        (Planning, {"lines_max": 0}),
        (Planning, {"models_max": 0}),
        (Planning, {"shard_lines_max": 0}),
        (Commits, {"append_seconds": 0.0}),
        (Commits, {"lines_max": 0}),
        (Drain, {"drain_seconds": -1.0}),
    ],
)
def test_impossible_settings_are_refused_by_name(
    kind: type[SandboxLimits | Claims | InFlightLimits | Planning | Commits | Drain],
    wrong: dict[str, float],
) -> None:
    with pytest.raises(SettingsInvalid, match=next(iter(wrong)).removesuffix("_seconds")):
        kind(**wrong)  # type: ignore[arg-type]  # that is what is tested
