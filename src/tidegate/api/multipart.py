"""A multipart form as a stream of events, in bounded memory.

The file is passed on piece by piece; other fields are collected, because they are small. Parts may
come in any order. The events do not depend on how the body is cut into pieces.
"""

from collections.abc import AsyncGenerator, AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tidegate.api.settings import Limits
from tidegate.application.upload_form import FILENAME_DEFAULT, Field, FileStart, FormEvent
from tidegate.domain.errors import Refused

FIELD_NAME_CHARACTERS_MAX = 128
FILE_FIELD = "file"


def boundary_of(content_type: str | None) -> bytes:
    """Return the boundary that a Content-Type header names.

    Raises:
        Refused: it is not a multipart form, or names no boundary.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise Refused(
            "An upload must be sent as multipart/form-data with a boundary, such as "
            "`curl -F purpose=batch -F file=@batch.jsonl` does."
        )
    return boundary


async def events(
    pieces: AsyncIterator[bytes], *, boundary: bytes, limits: Limits
) -> AsyncGenerator[FormEvent, None]:
    """Yield the events of a form.

    Raises:
        Refused: it is malformed, ends early, or exceeds a limit.
    """
    reader = FormReader(boundary, limits)
    async for piece in pieces:
        for event in reader.feed(piece):
            yield event
    reader.finish()


class FormReader:
    """Turns the pieces of a body into events."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        self._limits = limits
        self._events: list[FormEvent] = []
        self._parts = 0
        self._begun = False
        self._ended = False
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._name: str | None = None
        self._value = bytearray()
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_end": self._on_end,
                },
                max_header_count=limits.form_part_headers_max,
                max_header_size=limits.form_part_header_bytes_max,
            )
        except FormParserError as exc:
            raise Refused("The boundary of the multipart form is too long.") from exc

    def feed(self, piece: bytes) -> list[FormEvent]:
        """Parse the next bytes; return the events that they complete.

        Raises:
            Refused: the form is malformed or exceeds a limit.
        """
        self._events = []
        if not self._begun:
            # The parser skips line ends before a form, but whether it accepts what follows them as
            # the first boundary depends on how the bytes are cut.
            piece = piece.lstrip(b"\r\n")
            self._begun = bool(piece)
        try:
            self._parser.write(piece)
        except FormParserError as exc:
            raise Refused(f"The multipart form is malformed: {exc}.") from exc
        return self._events

    def finish(self) -> None:
        """Check that the form is complete.

        Raises:
            Refused: the closing boundary is missing.
        """
        if not self._ended:
            raise Refused(
                "The multipart form ends early: its closing boundary is missing. Upload it again."
            )

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._limits.form_parts_max:
            raise Refused(f"The form has more than {self._limits.form_parts_max} parts; send less.")
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not name or len(name) > FIELD_NAME_CHARACTERS_MAX:
            raise Refused(
                "Each part of the form needs a Content-Disposition with a name of 1 to "
                f"{FIELD_NAME_CHARACTERS_MAX} characters."
            )
        self._name = name
        self._value.clear()
        if name == FILE_FIELD:
            filename = options.get(b"filename", b"").decode("utf-8", "replace")
            self._events.append(FileStart(filename=filename or FILENAME_DEFAULT))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE_FIELD:
            self._events.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > self._limits.form_field_bytes_max:
            raise Refused(
                f"The field '{self._name}' is larger than "
                f"{self._limits.form_field_bytes_max} bytes; only 'file' may be."
            )

    def _on_part_end(self) -> None:
        if self._name is not None and self._name != FILE_FIELD:
            value = self._value.decode("utf-8", "replace")
            self._events.append(Field(name=self._name, value=value))
        self._name = None

    def _on_end(self) -> None:
        self._ended = True
