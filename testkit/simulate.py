"""`python -m testkit.simulate`: live through many seeded worlds, report each failure."""

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from testkit.breaks import BREAKS, broken
from testkit.world.environment import MakeStore, Report
from testkit.world.world import World
from tidegate.stores.memory import MemoryStore
from tidegate.stores.sqlite import SqliteStore
from tidegate.testing.inline_lanes import InlineExecutor
from tidegate.testing.loop import LoopClock, run_virtual

SQL_EVERY = 5
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where it exists, so that a flush costs nothing


async def _live(seed: int, make_store: MakeStore) -> Report:
    return await World(seed, make_store).run()


def live(seed: int, *, sql: bool | None = None) -> Report:
    """Run one world to its end: on SQLite's real statements, or on the ledger in memory.

    One seed in `SQL_EVERY` runs on SQLite where `sql` does not decide.

    Raises:
        Broken: a promise was not kept.
    """
    if not (seed % SQL_EVERY == 0 if sql is None else sql):
        return run_virtual(_live(seed, MemoryStore))
    home = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=home) as folder:

        def make_store(clock: LoopClock) -> SqliteStore:
            return SqliteStore(Path(folder) / "ledger.db", clock, InlineExecutor())

        return run_virtual(_live(seed, make_store))


def outcome(seed: int) -> Report | str:
    """Run one world; return what happened in it, or in words how it failed."""
    try:
        return live(seed)
    except Exception as error:  # noqa: BLE001 - the edge of a seed: the others still run
        return f"{failure_text(error)}\nFAILED; replay with: ./run simulate --seed {seed}"


def failure_text(error: BaseException) -> str:
    """Return what went wrong at bottom, where it was noticed, and the notes on the way there."""
    notes = [*getattr(error, "__notes__", [])]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        notes += getattr(error, "__notes__", [])
    frames = traceback.format_list(traceback.extract_tb(error.__traceback__)[-3:])
    return "\n".join([*notes, "".join(frames).rstrip(), f"{type(error).__name__}: {error}"])


def main() -> int:
    """Run the seeds that were asked for; exit status 1 if any of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds (default 300)")
    parser.add_argument("--seed", type=int, default=None, help="replay this one seed only")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--sql", action="store_true", help="run every seed on SQLite")
    parser.add_argument(
        "--break", dest="guard", choices=sorted(BREAKS), help="take one guard of the product away"
    )
    options = parser.parse_args()
    with broken(options.guard) if options.guard else nullcontext():
        return _search(options)


def _search(options: argparse.Namespace) -> int:
    first = options.first if options.seed is None else options.seed
    count = options.seeds if options.seed is None else 1
    failed: list[int] = []
    statuses: Counter[str] = Counter()
    crashes = requests = lines = 0
    started = time.perf_counter()
    for seed in range(first, first + count):
        try:
            report = live(seed, sql=True if options.sql else None)
        except Exception as error:  # noqa: BLE001 - the edge of a seed: the others still run
            failed.append(seed)
            print(failure_text(error))
            print(f"FAILED; replay with: ./run simulate --seed {seed}", flush=True)
            continue
        statuses += report.statuses
        crashes += report.crashes
        requests += report.requests
        lines += report.lines
    seconds = time.perf_counter() - started
    print(
        f"{count} seeds in {seconds:.1f} s ({count / seconds:.1f} a second): {crashes} crashes, "
        f"{lines} lines, {requests} requests, ends: {dict(sorted(statuses.items()))}"
    )
    print(f"failed seeds: {failed or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
