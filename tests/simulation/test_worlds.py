"""The system keeps its promises in every seeded world."""

import asyncio
from pathlib import Path

import pytest

from testkit.simulate import SQL_EVERY, live, outcome
from tidegate.testing.loop import TURNS_AT_ONCE_MAX, Deadlock, Livelock, run_virtual

SEEDS = 300
SEEDS_EACH = 50
SEEDS_ON_BOTH = 10
REGRESSIONS = Path(__file__).parent / "regressions.txt"


def regressions() -> list[int]:
    lines = REGRESSIONS.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_EACH))
def test_every_world_keeps_its_promises(first: int) -> None:
    found = [outcome(seed) for seed in range(first, first + SEEDS_EACH)]
    failed = [text for text in found if isinstance(text, str)]
    assert failed == [], "\n".join(failed)
    reports = [report for report in found if not isinstance(report, str)]
    assert sum(report.crashes for report in reports) > SEEDS_EACH, "the worlds have few faults"
    assert sum(report.commits_refused for report in reports) > 2, "no stale holder ever wrote"
    assert max(report.exposed_lines_max for report in reports) > 5, "a crash would repeat nothing"
    assert sum(report.child_deaths for report in reports) > 1, "no line ever killed a sandbox"
    assert sum(report.ended_by_collectors for report in reports) > 2, "no batch was orphaned"
    assert SEEDS // SQL_EVERY >= 60, "too few worlds run the real SQL"


@pytest.mark.parametrize("seed", regressions())
def test_a_seed_that_failed_once_holds(seed: int) -> None:
    live(seed)


def test_a_seed_replays_itself() -> None:
    first, second = live(7), live(7)
    assert first == second


def test_worlds_on_the_real_sql_are_the_same_worlds() -> None:
    """The same seeds on SQLite, its statements run inline: the ledger makes no difference."""
    for seed in range(SEEDS_ON_BOTH):
        assert live(seed, sql=True) == live(seed, sql=False)


def test_a_world_in_which_nothing_can_happen_any_more_is_reported() -> None:
    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def turn_for_ever() -> None:
        for _ in range(2 * TURNS_AT_ONCE_MAX):
            await asyncio.sleep(0)

    with pytest.raises(Deadlock):
        run_virtual(wait_for_ever())
    with pytest.raises(Livelock):
        run_virtual(turn_for_ever())
