"""The reader of forms against a plain reading of the whole, however it is cut."""

import re
from dataclasses import dataclass

from hypothesis import strategies as st

from testkit.fuzz.mutations import CUTS, Edit, cut, edited, edits
from testkit.fuzz.target import Target
from tidegate.api.multipart import FormReader
from tidegate.api.settings import Limits
from tidegate.application.upload_form import Field, FileStart, FormEvent
from tidegate.domain.errors import Refused

BOUNDARY = b"tide"
LIMITS = Limits(
    form_parts_max=6,
    form_field_bytes_max=64,
    form_part_headers_max=3,
    form_part_header_bytes_max=160,
)
TELLING = [
    b"\r\n", b"\r", b"\n", b"--", b"--tide", b"\r\n--tide", b"\r\n--tide\r\n", b"\r\n--tide--",
    b"--tide--\r\n", b":", b";", b'"', b'\\"', b"name=", b"\x00", b"\xff", b"\r\n\r\n",
    b'filename="', b"Content-Disposition: form-data; name=x\r\n", b"a" * 70,
]  # fmt: skip
NAMES = st.text("abcdefgh_[]", min_size=1, max_size=8) | st.sampled_from(["file", "purpose"])
CONTENT = st.lists(
    st.sampled_from([b"\r\n--tid", b"\r", b"\n", b"-", b"--tide", b"x", b"\r\n", b"\x00\xff"]),
    max_size=8,
).map(b"".join) | st.binary(max_size=40)


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a form."""

    name: str
    filename: str | None
    kind: str | None
    content: bytes

    def encode(self) -> bytes:
        """Return its bytes, without a boundary."""
        row = f'Content-Disposition: form-data; name="{self.name}"'
        if self.filename is not None:
            row += f'; filename="{self.filename}"'
        rows = [row] if self.kind is None else [f"Content-Type: {self.kind}", row]
        return "\r\n".join(rows).encode() + b"\r\n\r\n" + self.content


SECTIONS = st.builds(
    Section,
    NAMES,
    st.none() | st.text("abc.- ", max_size=8),
    st.none() | st.just("text/plain"),
    CONTENT.filter(lambda data: b"\r\n--tide" not in b"\r\n" + data),
)


@dataclass(frozen=True, slots=True)
class Form:
    """A form, and what is done to its bytes on the way."""

    sections: list[Section]
    changes: list[Edit]
    cuts: list[int]

    def encode(self) -> bytes:
        """Return the bytes that arrive."""
        opened = b"".join(b"--tide\r\n" + it.encode() + b"\r\n" for it in self.sections)
        return edited(opened + b"--tide--\r\n", self.changes)


INPUTS = st.builds(Form, st.lists(SECTIONS, max_size=7), edits(TELLING), CUTS)
Read = list[FormEvent] | str
# A boundary with anything else behind it is content.
_BETWEEN = re.compile(rb"\r\n--tide(?=\r\n|--)")


def check(form: Form) -> None:
    """Hold the reader to what was written, and to itself where that was spoilt."""
    data = form.encode()
    whole = read([data])
    pieces = read(cut(data, form.cuts))
    # The message for a malformed form names a place within its piece.
    alike = pieces == whole or (isinstance(pieces, str) and isinstance(whole, str))
    assert alike, f"it depends on how the bytes are cut: {pieces}"
    if isinstance(whole, list):
        assert sum(isinstance(event, FileStart | Field) for event in whole) <= LIMITS.form_parts_max
        plainly = _plainly(data)
        # Whether it is a file, and so stays bytes, is not for the plain reading to say.
        assert [
            plain if value == plain else _as_text(plain)
            for value, plain in zip(_values(whole), plainly, strict=True)
        ] == _values(whole), "not what a plain reading finds"
    if not form.changes and len(form.sections) <= LIMITS.form_parts_max:
        too_long = any(
            it.name != "file" and len(it.content) > LIMITS.form_field_bytes_max
            for it in form.sections
        )
        assert isinstance(whole, str) == too_long, whole
    if not form.changes and isinstance(whole, list):
        assert _names(whole) == [it.name for it in form.sections]
        assert _values(whole) == [
            it.content if it.name == "file" else _as_text(it.content) for it in form.sections
        ]


def read(pieces: list[bytes]) -> Read:
    """Return the events with the pieces of each file joined, or what was refused."""
    events: list[FormEvent] = []
    try:
        reader = FormReader(BOUNDARY, LIMITS)
        for piece in pieces:
            for event in reader.feed(piece):
                if isinstance(event, bytes) and events and isinstance(events[-1], bytes):
                    events[-1] += event
                else:
                    events.append(event)
        reader.finish()
    except Refused as refused:
        return str(refused)
    return [event for event in events if event != b""]


def _names(events: list[FormEvent]) -> list[str]:
    named = [event for event in events if not isinstance(event, bytes)]
    return [event.name if isinstance(event, Field) else "file" for event in named]


def _values(events: list[FormEvent]) -> list[bytes]:
    found: list[bytes] = []
    for event in events:
        if isinstance(event, FileStart):
            found.append(b"")
        elif isinstance(event, Field):
            found.append(event.value.encode())
        else:
            found[-1] += event
    return found


def _as_text(data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode()


def _plainly(data: bytes) -> list[bytes]:
    """Return the contents of all parts: what lies between a blank line and the next boundary."""
    found: list[bytes] = []
    end = data.index(b"--tide") + len(b"--tide")
    while not data.startswith(b"--", end):
        begin = data.index(b"\r\n\r\n", end) + 4
        between = _BETWEEN.search(data, begin)
        assert between is not None, "a part without an end was taken"
        found.append(data[begin : between.start()])
        end = between.end()
    return found


TARGET = Target(name="multipart", inputs=INPUTS, check=check)
