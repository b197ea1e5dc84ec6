"""Settings of the Python interpreter and the process, for processes that run for long."""

import gc
import resource
import sys
from contextlib import suppress
from importlib.machinery import SOURCE_SUFFIXES

from tidegate.domain import retry

# With Python's default of 5 ms, one commit waits several times that long, because each of its
# steps runs in a thread that must first get the interpreter back from the event loop.
SWITCH_INTERVAL_SECONDS = 0.001
# Net new objects between two collections. Python's default of 700 costs a tenth of a busy process.
GC_THRESHOLD = 20_000
OPEN_FILES_MAX = 65_536


def set_switch_interval() -> None:
    """Make the thread of the event loop yield to other threads after a millisecond.

    The ledger and the blobs work in threads, and users wait for them.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)


def tune_gc() -> None:
    """Exclude all existing objects from garbage collection, and collect the others rarely.

    The hot path creates no reference cycles: reference counts free almost all objects.
    """
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def raise_open_file_limit() -> None:
    """Raise the limit of open files as far as the system permits, up to `OPEN_FILES_MAX`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = OPEN_FILES_MAX if hard == unlimited else min(hard, OPEN_FILES_MAX)
    if soft != unlimited and soft < wanted:
        # Some systems refuse their hard limit as a value; then the old limit stays.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def is_compiled() -> bool:
    """Return whether the hot path is compiled; wheels may contain it compiled (record 13).

    All its modules are compiled together, so one of them is asked.
    """
    return not (retry.__file__ or "").endswith(tuple(SOURCE_SUFFIXES))


def hot_path_state() -> str:
    """Return whether the hot path is compiled, as text for `tidegate version`."""
    return "hot path compiled" if is_compiled() else "hot path interpreted"
