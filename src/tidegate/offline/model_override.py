"""Sets the model of every line of a batch file; all other members stay as written."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tidegate.domain.errors import Refused
from tidegate.offline.rows import numbered_lines
from tidegate.wire.jsonl import oversize_problem

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


def with_model(path: Path, model: str, *, line_bytes_max: int) -> Iterator[bytes]:
    """Yield the lines of a batch file with this model in each; numbers of lines stay.

    A line that is not a request is left unchanged: planning will report it.

    Raises:
        Refused: the file can't be read, or a line of it is too long.
    """
    written = 0
    for number, raw in numbered_lines(path, line_bytes_max):
        if raw is None:
            problem = oversize_problem(number, line_bytes_max)
            raise Refused(f"Line {number} of {path}: {problem.message}")
        yield b"\n" * (number - written - 1) + changed(raw, model) + b"\n"
        written = number


def changed(raw: bytes, model: str) -> bytes:
    """Return a request line with another model; any other line unchanged."""
    try:
        line = _decode(raw)
        body = _decode(bytes(line["body"]))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _changed_slowly(raw, model)
    except KeyError:
        return raw
    body["model"] = msgspec.Raw(_encode(model))
    line["body"] = msgspec.Raw(_encode(body))
    return _encode(line)


def _changed_slowly(raw: bytes, model: str) -> bytes:
    # Lone surrogates are JSON by its grammar, and only the standard library takes them.
    if b"\\u" not in raw:
        return raw
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    if not isinstance(line, dict) or not isinstance(line.get("body"), dict):
        return raw
    line["body"]["model"] = model
    return json.dumps(line).encode()
