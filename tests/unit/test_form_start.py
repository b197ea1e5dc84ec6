"""The bytes before the first boundary of a form are accepted or refused however they are cut."""

import pytest

from tidegate.api.multipart import FormReader
from tidegate.api.settings import Limits
from tidegate.domain.errors import Refused

WHOLE = b'--tide\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--tide--\r\n'


def read(pieces: list[bytes]) -> int:
    reader = FormReader(b"tide", Limits())
    events = [event for piece in pieces for event in reader.feed(piece)]
    reader.finish()
    return len(events)


def in_single_bytes(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\n\r\n\r"])
def test_line_ends_before_a_form_are_ignored(before: bytes) -> None:
    assert read([before + WHOLE]) == read(in_single_bytes(before + WHOLE)) == 1


@pytest.mark.parametrize("before", [b":", b"\r\n:", b"\r\nx\r\n"])
def test_anything_else_before_a_form_is_refused(before: bytes) -> None:
    for pieces in ([before + WHOLE], in_single_bytes(before + WHOLE)):
        with pytest.raises(Refused, match="malformed"):
            read(pieces)
