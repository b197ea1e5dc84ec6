"""`python -m testkit.fuzz`: search for inputs that break a promise, for some minutes."""

import argparse
import logging
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from testkit.fuzz import api, config, connections, jsonl, multipart, replies, simulator, splicing
from testkit.fuzz.harness import fuzz
from testkit.fuzz.target import Searchable

TARGETS: tuple[Searchable, ...] = (
    jsonl.TARGET,
    multipart.TARGET,
    replies.TARGET,
    api.TARGET,
    connections.TARGET,
    splicing.TARGET,
    config.TARGET,
    simulator.TARGET,
)
FOLDER = Path("fuzz-failures")
SEEDS = 2**31


def main(arguments: Sequence[str] | None = None, targets: Sequence[Searchable] = TARGETS) -> int:
    """Fuzz as asked for; exit status 1 if anything was found."""
    options = _parser(targets).parse_args(arguments)
    # They log each form and request that is malformed: here, thousands.
    for name in ("python_multipart", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    chosen = [target for target in targets if options.target in {None, target.name}]
    first = random.SystemRandom().randrange(SEEDS) if options.seed is None else options.seed
    seconds = 0.0 if options.seed is not None else 60.0 * options.minutes
    print(f"Fuzzing for {seconds:g} s from seed {first} ...", flush=True)
    tallies = fuzz(
        chosen, seconds=seconds, first_seed=first, folder=options.folder, now=time.perf_counter
    )
    for name, tally in tallies.items():
        print(tally.row(name))
    failed = [path for tally in tallies.values() for path in tally.found]
    for path in failed:
        print(f"\n{path}\n{path.read_text('utf-8')[:4_000]}")
    return 1 if failed else 0


def _parser(targets: Sequence[Searchable]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default 1)")
    parser.add_argument("--target", choices=[target.name for target in targets], default=None)
    parser.add_argument("--seed", type=int, default=None, help="replay this one seed only")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"where failures are kept (default {FOLDER})"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
