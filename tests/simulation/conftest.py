"""Each scenario runs twice: with signals, and with signals that deliver nothing."""

from collections.abc import Iterator

import pytest

from testkit.scenarios import scenario

WITH_PUBSUB, WITHOUT_PUBSUB = "with_pubsub", "without_pubsub"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2].startswith("test_scenarios_"):
        metafunc.parametrize("signals", [WITH_PUBSUB, WITHOUT_PUBSUB], indirect=True)


@pytest.fixture(autouse=True)
def signals(request: pytest.FixtureRequest) -> Iterator[str]:
    """Choose the signals of every scenario in this test; return their name."""
    chosen: str = getattr(request, "param", WITH_PUBSUB)
    with scenario.with_signals(deaf=chosen == WITHOUT_PUBSUB):
        yield chosen
