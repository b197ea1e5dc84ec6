"""How the product logs, and the name of every event that it logs.

One event is one line on standard error, as JSON or as text for people. Other libraries' records of
the standard `logging` module get the same form. Bodies, keys and prompts are never logged.
"""

import io
import logging
import sys
from contextlib import suppress
from enum import StrEnum
from typing import TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor
from typing_extensions import override

PROCESS_STARTED = "process_started"  # A process is ready for work; which and where.
PROCESS_STOPPING = "process_stopping"  # It takes no new work; why.
PROCESS_STOPPED = "process_stopped"  # Everything is closed.
PROCESSOR_STARTED = "processor_started"  # A child of `serve --processors` works; its pid.
PROCESSOR_ENDED = "processor_ended"  # Such a child ended unasked; why, and when it restarts.
PROCESSOR_OVERDUE = "processor_overdue"  # Such a child did not end in time; what was done.
OPEN_WITHOUT_KEYS = "open_without_keys"  # Every client that reaches the address may use it.
REQUEST_CRASHED = "request_crashed"  # A bug made an API call fail; with the traceback.
BATCH_PLANNED = "batch_planned"  # Its lines were validated and cut into shards.
BATCH_ENDED = "batch_ended"  # It reached a terminal status; with its counts.
CLAIM_LOST = "claim_lost"  # Another process took over a unit of this one.
ENDPOINT_BACKOFF_STARTED = "endpoint_backoff_started"  # A model server fails; why.
ENDPOINT_BACKOFF_ENDED = "endpoint_backoff_ended"  # It gets requests again.
STORE_UNAVAILABLE = "store_unavailable"  # The ledger does not answer; work waits.
STORAGE_FULL = "storage_full"  # The disk is full; work waits.
STORAGE_FREED = "storage_freed"  # There is room again; work continues.
STORAGE_BROKEN = "storage_broken"  # A flush failed; the process ends.
PLAN_MISSING = "plan_missing"  # A plan can't be read; its batch waits until it is restored.
INPUT_MISSING = "input_missing"  # An input can't be read; its batch waits unplanned.
SHARD_QUARANTINED = "shard_quarantined"  # It was lost twice by a crash; its lines run alone.
PLANNING_QUARANTINED = "planning_quarantined"  # Two processors died of it; a child process plans.
PLANNING_DIED = "planning_died"  # A child process died while it planned; of what, and how.
SANDBOX_DIED = "sandbox_died"  # A child process died of a line; which, and how.
SANDBOX_NOT_STARTED = "sandbox_not_started"  # No child process could be started; its work waits.
POISON_LINE_FAILED = "poison_line_failed"  # A line got the error processor_crashed; which.
SPACE_RECLAIMED = "space_reclaimed"  # A round of the collector removed data; how much.
FILE_COMPACTED = "file_compacted"  # A file of many parts was rewritten in few.
UNKNOWN_BLOB = "unknown_blob"  # A blob has an unknown name; it is not deleted.
BLOB_DAMAGED = "blob_damaged"  # Bytes that the ledger needs are gone and can't be repaired.
LINES_RERUN = "lines_rerun"  # Results of a running batch were gone, so their lines run again.
BATCHES_OVERDUE = "batches_overdue"  # They have to be ended, and could not be ended here.
UPSTREAM_CRASHED = "upstream_crashed"  # A bug made a call to a model server fail.

EVENTS = frozenset(
    value for name, value in list(globals().items()) if name.isupper() and isinstance(value, str)
)


class LogFormat(StrEnum):
    """The form of a line."""

    JSON = "json"  # One JSON object: for collectors.
    CONSOLE = "console"  # Aligned words, coloured on a terminal: for people.


class _Lossy(io.TextIOBase):
    """Passes text on, and drops what can't be written.

    Logs often go to a file on the disk that is full; to log that must not end the process.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @override
    def write(self, text: str, /) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    @override
    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def configure(log_format: LogFormat, *, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up logging for the whole process; the last call wins.

    Args:
        log_format: how lines look.
        level: the lowest level that is written: debug, info, warning or error.
        stream: where lines go; standard error if None.
    """
    # They log each malformed form and request, for which the client gets an error already.
    for name in ("python_multipart", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.ERROR)
    inner = stream or sys.stderr
    target = cast("TextIO", _Lossy(inner))
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final_processors = _final_processors(log_format, coloured=inner.isatty())
    structlog.configure(
        processors=[*shared, *final_processors],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # One write for each line, so that processes that share a stream do not mix their lines.
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *final_processors,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


def name_process(name: str) -> None:
    """Add the name of this process to all its lines. Called before its event loop runs."""
    structlog.contextvars.bind_contextvars(process=name)


def get_logger(room: str) -> FilteringBoundLogger:
    """Return the logger of a room, whose name is in each line."""
    logger: FilteringBoundLogger = structlog.get_logger(room=room)
    return logger


def _final_processors(log_format: LogFormat, *, coloured: bool) -> list[Processor]:
    if log_format is LogFormat.CONSOLE:
        return [structlog.dev.ConsoleRenderer(colors=coloured)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
