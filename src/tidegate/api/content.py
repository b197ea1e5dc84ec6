"""The bytes of a file over HTTP: whole, a range, or not again if the client has them."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import quote

from tidegate.api.errors import RangeUnsatisfiable, StateChanged
from tidegate.api.responses import Reply
from tidegate.api.routing import Request
from tidegate.application.content import Content

_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,4000})\s*-\s*([0-9]{0,4000})\s*", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?("[^"]*")')
_PARTIAL = 206
_NOT_MODIFIED = 304


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """`length` bytes from `start`."""

    start: int
    length: int


async def content_reply(content: Content, request: Request) -> Reply:
    """Return the reply for a GET or HEAD of a file's content.

    The length is that of the file when it was opened, so a file that grows meanwhile is served as
    it was; its next state has another entity tag.

    Raises:
        StateChanged: If-Match names another state of the file.
        RangeUnsatisfiable: no byte of the range exists.
    """
    size = content.file.bytes
    tag = f'"{content.file.id}-{size}"'
    headers = {"etag": tag, "accept-ranges": "bytes", "cache-control": "private, no-transform"}
    if not permits(request.headers.get("if-match"), tag):
        raise StateChanged(
            f"The file is not in the state that If-Match asks for: its ETag is {tag} now. "
            "Ask again without If-Match, or with this one."
        )
    if matches(request.headers.get("if-none-match"), tag):
        return Reply(status=_NOT_MODIFIED, headers=headers)
    headers["content-type"] = "application/octet-stream"
    headers["content-disposition"] = disposition(content.file.filename)
    headers["x-content-type-options"] = "nosniff"
    asked = _asked(request, size, tag)
    if asked is None:
        return await _streamed(content, Slice(start=0, length=size), request, 200, headers)
    if not asked.length:
        raise RangeUnsatisfiable(f"The file has {size} bytes, none of them in range.", length=size)
    last = asked.start + asked.length - 1
    headers["content-range"] = f"bytes {asked.start}-{last}/{size}"
    return await _streamed(content, asked, request, _PARTIAL, headers)


def disposition(filename: str) -> str:
    """Return a Content-Disposition that no filename can break out of."""
    plain = "".join(
        letter if letter.isascii() and letter.isprintable() and letter not in '"\\' else "_"
        for letter in filename
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _asked(request: Request, size: int, tag: str) -> Slice | None:
    # Ranges are defined for GET alone.
    if request.method != "GET" or not allows_range(request.headers.get("if-range"), tag):
        return None
    return read_range(request.headers.get("range"), size)


async def _streamed(
    content: Content, asked: Slice, request: Request, status: int, headers: dict[str, str]
) -> Reply:
    if request.method != "GET" or not asked.length:
        return Reply(status=status, headers=headers, length=asked.length)
    pieces = content.read(asked.start, asked.length)
    # Read before the response headers are sent: missing bytes can still be reported as an error.
    first = await anext(pieces)
    if len(first) == asked.length:
        await pieces.aclose()
        return Reply(status=status, headers=headers, body=first)
    joined = _after(first, pieces)
    return Reply(status=status, headers=headers, pieces=joined, length=asked.length)


async def _after(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        # Or it would be kept until the end, however slowly the client reads.
        del first
        async for piece in rest:
            yield piece


def read_range(header: str | None, size: int) -> Slice | None:
    """Return the bytes that a Range header asks for in a file of `size` bytes.

    None means the whole file: there is no header, it is malformed, or it asks for several ranges,
    which a server may pass over. A slice of length 0 means that nothing of the range exists.
    """
    match = None if header is None else _RANGE.fullmatch(header)
    if match is None:
        return None
    first, last = match.groups()
    if first:
        start = int(first)
        end = int(last) + 1 if last else size
        if last and end <= start:
            return None
    elif last:
        start = max(0, size - int(last))
        end = size
    else:
        return None
    return Slice(start=min(start, size), length=max(0, min(end, size) - start))


def matches(header: str | None, tag: str) -> bool:
    """Return whether an If-None-Match header names this tag; weak and strong are equal here."""
    if header is None:
        return False
    return header.strip() == "*" or tag in _TAG.findall(header)


def permits(header: str | None, tag: str) -> bool:
    """Return whether an If-Match header permits a response: it is absent, `*`, or names this tag.

    A weak tag never does, as it promises no equal bytes.
    """
    if header is None or header.strip() == "*":
        return True
    return tag in [item.strip() for item in header.split(",")]


def allows_range(header: str | None, tag: str) -> bool:
    """Return whether an If-Range header permits a part: it is absent, or names this tag.

    A date never does, as files carry none.
    """
    return header is None or header.strip() == tag
