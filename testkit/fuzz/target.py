"""One thing to be fuzzed: inputs for it, and what must hold of each."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Generic, NoReturn, Protocol, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")
INPUT_SECONDS_MAX = 20.0
SHOWN_CHARACTERS_MAX = 20_000


class Hung(BaseException):
    """One input took longer than `INPUT_SECONDS_MAX`; not to be caught by what is fuzzed."""


class Found(Exception):
    """An input breaks a promise. `shown` is the smallest one that was found, as Python writes it.

    What was raised is its cause.
    """

    def __init__(self, target: str, seed_number: int, shown: str) -> None:
        super().__init__(f"{target}, seed {seed_number}")
        self.shown = shown


class Searchable(Protocol):
    """What the harness sees of a target."""

    @property
    def name(self) -> str:
        """The name of the target."""
        ...

    def search(self, seed_number: int, inputs_max: int) -> int:
        """Try inputs; return how many."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(Generic[T]):
    """What is fuzzed.

    Attributes:
        name: one word, for the command line.
        inputs: makes inputs.
        check: takes one input, and raises any error if a promise is broken.
    """

    name: str
    inputs: SearchStrategy[T]
    check: Callable[[T], None]

    def search(self, seed_number: int, inputs_max: int) -> int:
        """Try inputs; return how many. The same seed tries the same inputs.

        Raises:
            Found: one of them breaks a promise, or takes longer than `INPUT_SECONDS_MAX`.
        """
        count = 0
        latest: list[T] = []

        @seed(seed_number)
        @settings(
            max_examples=inputs_max,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
        )
        @given(self.inputs)
        def attempt(example: T) -> None:
            nonlocal count
            count += 1
            # The smallest failing input is tried once more at the end.
            latest[:] = [example]
            with _limited():
                self.check(example)

        try:
            attempt()
        except (Exception, Hung) as exc:
            shown = repr(latest[0])[:SHOWN_CHARACTERS_MAX] if latest else "no input could be made"
            raise Found(self.name, seed_number, shown) from exc
        return count


@contextmanager
def _limited() -> Iterator[None]:
    """Raise Hung in what runs inside once it takes too long; needs the main thread."""

    def give_up(_number: int, _frame: FrameType | None) -> NoReturn:
        raise Hung(f"This input takes longer than {INPUT_SECONDS_MAX:g} s.")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, INPUT_SECONDS_MAX)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
