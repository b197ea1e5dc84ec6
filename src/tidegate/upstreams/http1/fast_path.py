"""Reads complete, simple replies without the full parser, at a third of its cost.

Nearly every reply of a model server arrives in one piece: a final status, headers that were seen
before, a length, and a body of that length. Any other reply is left to the full parser. This parser
rejects nothing, and accepts nothing that the full parser would reject or read differently.
"""

import re
from typing import Final

from tidegate.upstreams.base import Reply
from tidegate.upstreams.settings import Limits

LINES_KEPT_MAX = 256  # Header lines remembered: most are the same in each reply.

_HEAD_END: Final = b"\r\n\r\n"
# 204 and 304 have no body, even if their headers announce one.
_START = re.compile(rb"HTTP/1\.1 (?!204|304)([2-5][0-9][0-9]) [A-Za-z0-9 '-]*")
_LINE = re.compile(rb"([a-zA-Z][a-zA-Z0-9-]*): ?([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_LENGTH_DIGITS_MAX: Final = 15
_LENGTH_STARTS = (b"content-length: ", b"Content-Length: ")
_LENGTH_BYTES: Final = 16
# Headers about the length or coding of a body, or about the connection.
_FRAMING_HEADERS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class FastReplyParser:
    """Reads simple replies of one upstream, whose header lines it remembers."""

    def __init__(self, limits: Limits) -> None:
        # Kept here because each reply reads them.
        self._header_bytes_max = limits.header_bytes_max
        self._lines_max = limits.header_count_max + 1
        self._body_bytes_max = limits.body_bytes_max
        self._statuses: dict[bytes, int] = {}
        self._lines: dict[bytes, tuple[str, str]] = {}

    def read(self, data: bytes) -> Reply | None:
        """Return the reply that these bytes contain; None if the full parser must read them."""
        end = data.find(_HEAD_END, 0, self._header_bytes_max)
        if end < 0:
            return None
        lines = data[:end].split(b"\r\n")
        if len(lines) > self._lines_max:
            return None
        start = lines.pop(0)
        status = self._statuses.get(start) or self._learn_start(start)
        headers = self._headers(lines)
        if not (status and headers):
            return None
        body = data[end + len(_HEAD_END) :]
        if len(body) != int(headers["content-length"]) or len(body) > self._body_bytes_max:
            return None
        return Reply(status=status, headers=headers, body=body)

    def _headers(self, lines: list[bytes]) -> dict[str, str] | None:
        """Return the headers with their length; None if one of them is not simple."""
        known = self._lines
        headers: dict[str, str] = {}
        for line in lines:
            pair = known.get(line)
            if pair is None:
                if line.startswith(_LENGTH_STARTS):
                    # The one line that differs in each reply, and that each reply must have.
                    digits = line[_LENGTH_BYTES:]
                    if "content-length" in headers or not _is_length(digits):
                        return None
                    headers["content-length"] = digits.decode("ascii")
                    continue
                pair = self._learn(line)
                if pair is None:
                    return None
            headers[pair[0]] = pair[1]
        return headers if "content-length" in headers else None

    def _learn_start(self, start: bytes) -> int:
        """Return the status of a status line; 0 if it is not simple."""
        match = _START.fullmatch(start)
        if match is None:
            return 0
        status = int(match[1])
        if len(self._statuses) < LINES_KEPT_MAX:
            self._statuses[start] = status
        return status

    def _learn(self, line: bytes) -> tuple[str, str] | None:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        name, value = match[1].decode("ascii").lower(), match[2].decode("ascii")
        if name in _FRAMING_HEADERS and (name, value.lower()) != ("connection", "keep-alive"):
            return None
        if name != "x-request-id":  # It differs in each reply, so it is not remembered.
            if len(self._lines) >= LINES_KEPT_MAX:
                self._lines.clear()
            self._lines[line] = (name, value)
        return name, value


def _is_length(digits: bytes) -> bool:
    return digits.isdigit() and len(digits) <= _LENGTH_DIGITS_MAX
