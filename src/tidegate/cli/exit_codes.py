"""The exit codes of all commands, and how a long-running command ends with one of them."""

import sys
from collections.abc import Coroutine
from enum import IntEnum

import typer
import uvloop

from tidegate.domain.errors import TidegateError
from tidegate.runtime.interpreter import set_switch_interval, tune_gc


class ExitCode(IntEnum):
    """What the exit code of a command means."""

    OK = 0  # It ended well.
    FAILED = 1  # A service died, a command failed, or an input has failed or invalid lines.
    WRONG_SETTINGS = 2  # Wrong settings or arguments, or an input that `run` can't use.
    INTERRUPTED = 3  # A signal ended it before its work was done.
    PROBLEM_FOUND = 4  # It ran, and found lost bytes (`gc`) or a batch that did not complete.


def run_until_stopped(process: Coroutine[None, None, bool]) -> None:
    """Run a process on its event loop until it ends, then exit with the code for how it ended.

    Raises:
        BaseExceptionGroup: a bug of ours contributed to its end.
        TidegateError: it could not start.
    """
    tune_gc()
    set_switch_interval()
    try:
        forced = uvloop.run(process)
    except BaseExceptionGroup as group:
        message = failure_reason(group)
        if message is None:
            raise
        typer.echo(f"tidegate: a service died, so the process ends: {message}", err=True)
        sys.exit(ExitCode.FAILED)
    sys.exit(ExitCode.INTERRUPTED if forced else ExitCode.OK)


def failure_reason(group: BaseExceptionGroup[BaseException]) -> str | None:
    """Return in one line what ended the process; None if a bug of ours contributed to it."""
    known, other = group.split(TidegateError)
    if known is None or other is not None:
        return None
    error: BaseException = known
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
