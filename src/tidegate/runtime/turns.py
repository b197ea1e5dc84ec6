"""How soon a thread that waits for the interpreter gets its turn."""

import sys

# Python's own 5 ms are waited for at each step: a look at the ledger takes several, and so did a
# commit, while lines are sent at full speed.
TURN_SECONDS = 0.001


def take_short_turns() -> None:
    """Let the thread of the event loop give way to others after a millisecond of work.

    The ledger and the blobs work in threads, and users wait for them.
    """
    sys.setswitchinterval(TURN_SECONDS)
