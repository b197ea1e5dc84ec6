"""How a long-running command ends: which exit status, and which words."""

import sys
from collections.abc import Coroutine

import typer
import uvloop

from tidegate.domain.errors import TidegateError
from tidegate.runtime.interpreter import set_switch_interval, tune_gc

DIED = 1
FORCED = 3


def until_it_ends(process: Coroutine[None, None, bool]) -> None:
    """Run a process on its event loop until it ends; leave with the exit status that tells how.

    Raises:
        BaseExceptionGroup: a bug of ours had a part in its end.
        TidegateError: it could not start.
    """
    tune_gc()
    set_switch_interval()
    try:
        forced = uvloop.run(process)
    except BaseExceptionGroup as group:
        message = explanation(group)
        if message is None:
            raise
        typer.echo(f"tidegate: a service died, so the process ends: {message}", err=True)
        sys.exit(DIED)
    sys.exit(FORCED if forced else 0)


def explanation(group: BaseExceptionGroup[BaseException]) -> str | None:
    """Return in one line what ended the process; None if a bug of ours had a part in it."""
    known, other = group.split(TidegateError)
    if known is None or other is not None:
        return None
    error: BaseException = known
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
