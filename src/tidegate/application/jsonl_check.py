"""Is this JSON Lines? Judged by its first line while the bytes stream by.

Later lines are judged when the batch is validated, where each one gets its own error.
"""

from enum import StrEnum

import msgspec

from tidegate.wire.jsonl import without_lone_surrogates

SNIFF_BYTES_MAX = 2**20
START_BYTES = 4
_COMPRESSED = "The file is compressed: unpack it first."
_WIDE = "The file is UTF-16 or UTF-32: save it as UTF-8."
# What a file that is no JSON Lines may be instead, by its first bytes.
_STARTS = (
    (b"\x1f\x8b", _COMPRESSED),
    (b"PK\x03\x04", _COMPRESSED),
    (b"\x28\xb5\x2f\xfd", _COMPRESSED),
    (b"BZh", _COMPRESSED),
    (b"\xfd7zX", _COMPRESSED),
    (b"\xff\xfe", _WIDE),
    (b"\xfe\xff", _WIDE),
    (b"\x00", _WIDE),
    (b"{\x00", _WIDE),
    (b"[", "The file is a JSON array: write each request on a line of its own."),
)
_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"


class Verdict(StrEnum):
    """What is known about the first line."""

    UNDECIDED = "undecided"  # It has not ended yet.
    GOOD = "good"  # It is a JSON object, or longer than we look and begins like one.
    BAD = "bad"  # It is something else.


class Sniffer:
    """Takes a file in pieces; keeps no more than `SNIFF_BYTES_MAX` bytes of it."""

    def __init__(self) -> None:
        self.verdict = Verdict.UNDECIDED
        self._start = b""
        self._line = bytearray()
        self._searched = 0
        self._past_bom = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self.verdict is not Verdict.UNDECIDED:
            return
        self._start += data[: START_BYTES - len(self._start)]
        self._line += data
        if not self._skip_bom():
            return
        self._skip_blanks()
        # Only new bytes are searched, so that tiny pieces cost no more than large ones.
        end = self._line.find(b"\n", self._searched)
        self._searched = len(self._line)
        if 0 <= end <= SNIFF_BYTES_MAX:
            self._decide(bytes(self._line[:end]))
        elif len(self._line) > SNIFF_BYTES_MAX:
            self.verdict = Verdict.GOOD if self._line.startswith(b"{") else Verdict.BAD
        if self.verdict is not Verdict.UNDECIDED:
            self._line.clear()

    def finish(self) -> Verdict:
        """Judge at the end of the file, where the first line may have no newline."""
        if self.verdict is Verdict.UNDECIDED:
            line = bytes(self._line)
            self._decide(line if self._past_bom else line.removeprefix(_BOM))
        return self.verdict

    @property
    def hint(self) -> str:
        """What the file seems to be instead of JSON Lines, and what to do; often unknown."""
        if not self._start:
            return "The file is empty."
        return next((hint for start, hint in _STARTS if self._start.startswith(start)), "")

    @property
    def is_foreign(self) -> bool:
        """Return whether it is certainly another kind of file, such as a compressed one."""
        return self.verdict is Verdict.BAD and bool(self._start) and bool(self.hint)

    def _skip_bom(self) -> bool:
        """Drop a byte order mark at the start; return whether its presence is decided."""
        if not self._past_bom:
            if len(self._line) < len(_BOM) and _BOM.startswith(self._line):
                return False
            self._past_bom = True
            if self._line.startswith(_BOM):
                del self._line[: len(_BOM)]
        return True

    def _skip_blanks(self) -> None:
        if self._line[:1].isspace():
            self._line = self._line.lstrip(_BLANK)
            self._searched = 0

    def _decide(self, line: bytes) -> None:
        self.verdict = Verdict.GOOD if _is_object(line) else Verdict.BAD


def _is_object(line: bytes) -> bool:
    try:
        # The decoder takes any bytes within texts that it need not read.
        line.decode()
        msgspec.json.decode(without_lone_surrogates(line), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
