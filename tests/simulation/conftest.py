"""Each story is told twice: with signals, and with signals that deliver nothing."""

from collections.abc import Iterator

import pytest

from testkit.scenarios import scenario

HEARD, DEAF = "heard", "deaf"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2].startswith("test_stories_"):
        metafunc.parametrize("signals", [HEARD, DEAF], indirect=True)


@pytest.fixture(autouse=True)
def signals(request: pytest.FixtureRequest) -> Iterator[str]:
    """Choose the signals of every story that is told in this test; return what they are."""
    chosen: str = getattr(request, "param", HEARD)
    with scenario.with_signals(deaf=chosen == DEAF):
        yield chosen
