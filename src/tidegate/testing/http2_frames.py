"""Frames of HTTP/2 as bytes, sound ones and others: what a server of the tests may say."""

import struct
from collections.abc import Iterable

from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tidegate.upstreams.http2.frames import END_HEADERS
from tidegate.upstreams.http2.heads import Field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM, PADDED, PRIORITIZED = 0x1, 0x8, 0x20

DATA, HEADERS, PRIORITY = DataFrame.type, HeadersFrame.type, PriorityFrame.type
RST_STREAM, SETTINGS, PING = RstStreamFrame.type, SettingsFrame.type, PingFrame.type
PUSH_PROMISE, WINDOW_UPDATE = PushPromiseFrame.type, WindowUpdateFrame.type


def frame(kind: int | None, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame of any kind, whatever its payload."""
    assert kind is not None, "hyperframe gives each of its frames a kind"
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def head(*fields: Field, stream: int = 1, flags: int = 0) -> bytes:
    """Return a frame with a whole block of headers."""
    return frame(HEADERS, END_HEADERS | flags, stream, pack(fields))


def data(body: bytes, *, stream: int = 1, flags: int = END_STREAM) -> bytes:
    """Return a frame with a piece of a body: the last one, unless the flags say otherwise."""
    return frame(DATA, flags, stream, body)


def settings_frame(values: dict[SettingCodes, int] | None = None) -> bytes:
    """Return a frame of settings, sound or not."""
    pairs = (values or {}).items()
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_frame(stream: int, more: int) -> bytes:
    """Return a frame that lets the other side send so many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def reset_frame(stream: int, code: int) -> bytes:
    """Return a frame that ends a call."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def pack(fields: Iterable[Field]) -> bytes:
    """Return headers packed as the first ones of a connection, which may be said at any time."""
    return Encoder().encode([*fields])
