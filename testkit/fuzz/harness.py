"""Fuzz for a time: each target gets the same share, and what is found is kept."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testkit.fuzz.target import Found, Searchable

INPUTS_PER_SEED = 100


@dataclass(slots=True)
class Tally:
    """What was tried of one target."""

    seeds: int = 0
    inputs: int = 0
    seconds: float = 0.0
    found: list[Path] = field(default_factory=list)

    def row(self, name: str) -> str:
        """Return the figures on one line."""
        rate = self.seeds / self.seconds if self.seconds else 0.0
        each = self.inputs / self.seconds if self.seconds else 0.0
        end = f"FAILED, see {self.found[0]}" if self.found else "nothing found"
        return (
            f"{name:<10} {self.seeds:>6} seeds  {rate:>7.2f} seeds/s  {self.inputs:>8} inputs  "
            f"{each:>8.0f} inputs/s  {end}"
        )


def fuzz(
    targets: Sequence[Searchable],
    *,
    seconds: float,
    first_seed: int,
    folder: Path,
    now: Callable[[], float],
) -> dict[str, Tally]:
    """Fuzz until the time is over; every target runs at least once.

    A target in which something was found rests from then on: it would find the same again.

    Args:
        targets: what to fuzz.
        seconds: how long, for all of them together.
        first_seed: the first seed of each; the others follow it.
        folder: where what was found is kept, one file for each; made if it is needed.
        now: a clock that only runs forwards, in seconds.
    """
    tallies = {target.name: Tally() for target in targets}
    left = list(targets)
    end = now() + seconds
    while left:
        target = min(left, key=lambda it: tallies[it.name].seconds)
        tally = tallies[target.name]
        if tally.seeds and now() >= end:
            break
        began = now()
        try:
            tally.inputs += target.search(first_seed + tally.seeds, INPUTS_PER_SEED)
        except Found as found:
            tally.found.append(_keep(found, target.name, first_seed + tally.seeds, folder))
            left.remove(target)
        tally.seeds += 1
        tally.seconds += now() - began
    return tallies


def _keep(found: Found, name: str, seed: int, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{seed}.txt"
    text = "".join(traceback.format_exception(found))
    path.write_text(
        f"Replay with: ./run fuzz --target {name} --seed {seed}\n\n"
        f"The smallest input that was found:\n{found.shown}\n\n{text}",
        "utf-8",
        "backslashreplace",
    )
    return path
