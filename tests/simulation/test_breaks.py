"""Every rule of the protocol is there for a reason: without its guard some world fails soon."""

import re
from pathlib import Path

import pytest

from testkit.breaks import BREAKS, broken
from testkit.simulate import live, outcome

SEEDS_MAX = 40
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_without_this_guard_a_world_fails(name: str) -> None:
    first = BREAKS[name].first
    with broken(name):
        for seed in range(first, first + SEEDS_MAX):
            found = outcome(seed)
            if isinstance(found, str):
                assert "\nBroken: " in found, found
                return
    pytest.fail(f"{SEEDS_MAX} worlds hold although {BREAKS[name].what}")


def test_a_guard_is_back_in_its_place_afterwards() -> None:
    with broken("01-epoch"):
        pass
    live(2)


def test_every_rule_has_a_break() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    rules = {int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)}
    assert rules == {entry.rule for entry in BREAKS.values()}
