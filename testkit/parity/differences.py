"""What differs between two recordings, and which of it is known."""

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path

import msgspec
from typing_extensions import override

from testkit.parity.asking import Answer, Recording
from testkit.parity.shapes import Family, Shape

NOTHING = "-"
_ROW = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \| `([^`]+)` \| (.+) \|$", re.MULTILINE)


class Difference(msgspec.Struct, frozen=True):
    """One thing that differs: in which probe, where in its answer, and how."""

    probe: str
    place: str
    theirs: str
    ours: str

    @override
    def __str__(self) -> str:
        return f"{self.probe}  {self.place}  theirs: {self.theirs}  ours: {self.ours}"


class Known(msgspec.Struct, frozen=True):
    """A difference that is accepted. The names are patterns of `fnmatch`, but for brackets.

    A place that begins with a plus is only of what the simulator has and the other has not.
    """

    server: str
    probe: str
    place: str
    reason: str

    def is_of(self, server: str, difference: Difference) -> bool:
        """Return whether it accepts a difference from this kind of server."""
        return (
            self.server in {server, "*"}
            and fnmatchcase(difference.probe, self.probe)
            and (difference.theirs == NOTHING or not self.place.startswith("+"))
            and fnmatchcase(difference.place, self.place.removeprefix("+").replace("[", "[[]"))
        )


def known_in(page: Path) -> list[Known]:
    """Return the rows of the table of known differences in a page of the docs."""
    return [Known(*row) for row in _ROW.findall(page.read_text())]


def differences(theirs: Recording, ours: Recording) -> list[Difference]:
    """Return everything that differs, in the order of the probes."""
    found = [
        difference
        for probe, answer in theirs.answers.items()
        for difference in _of_answers(probe, answer, ours.answers[probe])
    ]
    return found + list(_of_families(theirs.metrics, ours.metrics))


def _of_answers(probe: str, theirs: Answer, ours: Answer) -> Iterator[Difference]:
    if theirs.status != ours.status:
        # The rest is of another kind.
        yield Difference(probe, "status", str(theirs.status), str(ours.status))
        return
    for name in sorted({*theirs.headers, *ours.headers}):
        pair = theirs.headers.get(name, NOTHING), ours.headers.get(name, NOTHING)
        if pair[0] != pair[1]:
            yield Difference(probe, f"header {name}", *pair)
    if (theirs.shape is None) != (ours.shape is None):
        words = ("no JSON", "JSON")
        yield Difference(
            probe, "body", words[theirs.shape is not None], words[ours.shape is not None]
        )
    else:
        yield from _of_shapes(probe, "", theirs.shape or {}, ours.shape or {})
    for place, pair_ in enumerate(zip_longest(theirs.events, ours.events)):
        left, right = pair_
        yield from _of_shapes(probe, f"event {place} ", left or {}, right or {})


def _of_shapes(probe: str, before: str, theirs: Shape, ours: Shape) -> Iterator[Difference]:
    """Compare by path; what is inside of something that differs is passed over."""
    differing: list[str] = []
    for path in [*theirs, *(path for path in ours if path not in theirs)]:
        pair = theirs.get(path, NOTHING), ours.get(path, NOTHING)
        if pair[0] == pair[1] or any(_is_inside(path, parent) for parent in differing):
            continue
        differing.append(path)
        yield Difference(probe, before + (path or "body"), *pair)


def _is_inside(path: str, parent: str) -> bool:
    return not parent or path.startswith((parent + ".", parent + "["))


def _of_families(theirs: Mapping[str, Family], ours: Mapping[str, Family]) -> Iterator[Difference]:
    for name in sorted({*theirs, *ours}):
        left, right = theirs.get(name), ours.get(name)
        if left is None or right is None:
            words = [NOTHING if family is None else family.type for family in (left, right)]
            yield Difference("metrics", name, *words)
            continue
        for part in ("type", "labels", "buckets"):
            pair = str(getattr(left, part)), str(getattr(right, part))
            if pair[0] != pair[1]:
                yield Difference("metrics", f"{name} {part}", *pair)


def sorted_out(
    server: str, found: list[Difference], known: list[Known]
) -> tuple[list[Difference], list[Known]]:
    """Return the differences that nobody accepts, and the rows for this server that none needs."""
    unknown = [item for item in found if not any(row.is_of(server, item) for row in known)]
    mine = [row for row in known if row.server == server]
    idle = [row for row in mine if not any(row.is_of(server, item) for item in found)]
    return unknown, idle
