"""Log lines are one event each, in the form that was asked for."""

import errno
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from typing_extensions import override

from tidegate.telemetry import logs
from tidegate.telemetry.logs import EVENTS, LogFormat, configure, get_logger


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """Leave logging to the other tests as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_an_event_is_one_json_object() -> None:
    stream = io.StringIO()
    configure(LogFormat.JSON, stream=stream)
    get_logger("processor").info(logs.BATCH_ENDED, batch="batch_1", status="completed")
    event = json.loads(stream.getvalue())
    stamp = event.pop("timestamp")
    assert stamp.endswith("Z")
    assert event == {
        "event": "batch_ended",
        "level": "info",
        "room": "processor",
        "batch": "batch_1",
        "status": "completed",
    }


def test_a_trace_stays_on_its_line() -> None:
    stream = io.StringIO()
    configure(LogFormat.JSON, stream=stream)
    try:
        int("seven")
    except ValueError:
        get_logger("api").exception(logs.REQUEST_CRASHED)
    [line] = stream.getvalue().splitlines()
    assert "ValueError" in json.loads(line)["exception"]


def test_lines_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    configure(LogFormat.JSON, level="warning", stream=stream)
    logger = get_logger("api")
    logger.info(logs.BATCH_PLANNED)
    logger.warning(logs.STORAGE_FULL)
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == [
        "storage_full"
    ]


def test_the_console_is_for_people() -> None:
    stream = io.StringIO()
    configure(LogFormat.CONSOLE, stream=stream)
    get_logger("cli").info(logs.PROCESS_STARTED, port=8000)
    line = stream.getvalue()
    assert "process_started" in line
    assert "port=8000" in line
    assert "\x1b" not in line


def test_what_others_log_looks_the_same() -> None:
    stream = io.StringIO()
    configure(LogFormat.JSON, stream=stream)
    logging.getLogger("uvicorn.error").error("The application failed.")
    event = json.loads(stream.getvalue())
    assert event["event"] == "The application failed."
    assert event["level"] == "error"


@pytest.mark.parametrize("name", ["uvicorn.error", "python_multipart"])
def test_what_a_client_wrote_badly_is_not_logged(name: str) -> None:
    stream = io.StringIO()
    configure(LogFormat.JSON, stream=stream)
    logging.getLogger(name).warning("Invalid HTTP request received.")
    assert stream.getvalue() == ""


def test_event_names_are_words_with_underscores() -> None:
    assert EVENTS
    assert all(name.replace("_", "").isalpha() and name.islower() for name in EVENTS)


class Full(io.StringIO):
    """A file on a full disk."""

    def __init__(self, refused: str) -> None:
        super().__init__()
        self.refused = refused
        self.refusals = 0

    def refuse(self, what: str) -> None:
        if what == self.refused:
            self.refusals += 1
            raise OSError(errno.ENOSPC, "No space left on device")

    @override
    def write(self, text: str, /) -> int:
        self.refuse("write")
        return super().write(text)

    @override
    def flush(self) -> None:
        self.refuse("flush")


@pytest.mark.parametrize("refused", ["write", "flush"])
def test_a_log_without_room_ends_no_process(refused: str) -> None:
    stream = Full(refused)
    configure(LogFormat.JSON, stream=stream)
    get_logger("processor").warning(logs.STORAGE_FULL)
    logging.getLogger("uvicorn.error").error("The application failed.")
    assert stream.refusals >= 2
