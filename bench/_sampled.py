"""Runs `tidegate` and writes its Python stack to a file at every few milliseconds of its CPU time.

    python bench/_sampled.py STACKS ARGUMENTS...

The stacks are written by the signal handler of `faulthandler`, which is C code: it runs where the
signal struck, even in the middle of the event loop's own C code, and not at the next bytecode.
"""

import faulthandler
import signal
import sys
from pathlib import Path

# The kernel looks at these timers at its ticks: most have 250 a second.
INTERVAL_SECONDS = 0.001


def main() -> None:
    from tidegate.cli import main as tidegate  # noqa: PLC0415 -- its import is not to be sampled

    stacks = Path(sys.argv[1]).open("wb", buffering=0)  # noqa: SIM115 -- open as long as the process lives
    faulthandler.register(signal.SIGPROF, file=stacks, all_threads=False, chain=False)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)
    sys.argv = ["tidegate", *sys.argv[2:]]
    tidegate()


if __name__ == "__main__":
    main()
