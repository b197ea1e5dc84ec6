"""`python -m tidegate.testing.simulate`: live through many seeded worlds, report each failure."""

import argparse
import sys
import time
import traceback
from collections import Counter

from tidegate.stores.memory import MemoryStore
from tidegate.testing.loop import run_virtual
from tidegate.testing.world import MakeStore, Report, World


async def _live(seed: int, make_store: MakeStore) -> Report:
    return await World(seed, make_store=make_store).run()


def live(seed: int, *, make_store: MakeStore = MemoryStore) -> Report:
    """Run one world to its end, on this ledger.

    Raises:
        Broken: a promise was not kept.
    """
    return run_virtual(_live(seed, make_store))


def main() -> int:
    """Run the seeds that were asked for; exit status 1 if any of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many seeds (default 300)")
    parser.add_argument("--seed", type=int, default=None, help="replay this one seed only")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    options = parser.parse_args()
    first = options.first if options.seed is None else options.seed
    count = options.seeds if options.seed is None else 1
    failed: list[int] = []
    statuses: Counter[str] = Counter()
    crashes = requests = lines = 0
    started = time.perf_counter()
    for seed in range(first, first + count):
        try:
            report = live(seed)
        except Exception:  # noqa: BLE001 - the edge of a seed: the others still run
            failed.append(seed)
            traceback.print_exc()
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
