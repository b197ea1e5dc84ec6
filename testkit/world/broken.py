"""What a world raises where a promise was not kept, and where it is noted down."""

from testkit.world.timeline import Timeline


class Broken(AssertionError):
    """An invariant of the protocol does not hold."""


class Complaints:
    """The first promise that was not kept, also if the code that broke it swallows the error."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._first: Broken | None = None

    def note(self, error: Broken) -> None:
        """Remember it, if it is the first, and what happened before it."""
        if self._first is None:
            error.add_note(f"The last port calls before it:\n{self._timeline.text()}")
            self._first = error

    def raise_first(self) -> None:
        """Raise what was noted.

        Raises:
            Broken: a promise was not kept.
        """
        if self._first is not None:
            raise self._first
