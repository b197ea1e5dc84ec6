"""The frames of HTTP/2 (RFC 9113): cut out of what comes, and made of what goes."""

import struct
from typing import NamedTuple

from tidegate.upstreams.http2.faults import ProtocolBroken

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
PAYLOAD_BYTES_MAX = 16_384  # Of a frame that is sent to us; the least that the protocol allows.
STREAM_ID_MAX = 2**31 - 1
WINDOW_MAX = 2**31 - 1
WINDOW_START = 65_535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, CANCEL, HTTP_1_1_REQUIRED = 0, 1, 7, 8, 13


class Frame(NamedTuple):
    """One frame; padding and priority are cut off."""

    kind: int
    flags: int
    stream: int
    payload: bytes
    # What counts against windows of flow control.
    size: int


class FrameReader:
    """Cuts frames out of pieces of any size; never keeps more than one frame and a piece."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._bytes += data

    def next(self) -> Frame | None:
        """Return the next whole frame; None until more bytes come.

        Raises:
            ProtocolBroken: it is larger than allowed, or badly padded.
        """
        held = self._bytes
        if len(held) < HEAD_BYTES:
            return None
        size = int.from_bytes(held[:3], "big")
        if size > PAYLOAD_BYTES_MAX:
            raise ProtocolBroken("a frame that is larger than allowed")
        end = HEAD_BYTES + size
        if len(held) < end:
            return None
        kind, flags = held[3], held[4]
        stream = int.from_bytes(held[5:9], "big") & STREAM_ID_MAX
        payload = bytes(held[HEAD_BYTES:end])
        del held[:end]
        if kind in {DATA, HEADERS} and flags & (PADDED | PRIORITIZED):
            payload = _bare(kind, flags, payload)
        return Frame(kind, flags, stream, payload, size)


def _bare(kind: int, flags: int, payload: bytes) -> bytes:
    padding = 0
    start = 0
    if flags & PADDED:
        padding = payload[0] if payload else 1
        start = 1
    if kind == HEADERS and flags & PRIORITIZED:
        start += 5
    if start + padding > len(payload):
        raise ProtocolBroken("a frame with more padding than it has room for")
    return payload[start : len(payload) - padding]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame as bytes."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def settings_frame(**values: int) -> bytes:
    """Return a frame of settings; the names are those above, in lower case."""
    payload = b"".join(struct.pack(">HI", _SETTINGS[name], value) for name, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


def window_frame(stream: int, more: int) -> bytes:
    """Return a frame that lets the other side send so many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def reset_frame(stream: int, code: int) -> bytes:
    """Return a frame that ends a call."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


_SETTINGS = {
    "header_table_size": HEADER_TABLE_SIZE,
    "enable_push": ENABLE_PUSH,
    "max_concurrent_streams": MAX_CONCURRENT_STREAMS,
    "initial_window_size": INITIAL_WINDOW_SIZE,
    "max_frame_size": MAX_FRAME_SIZE,
    "max_header_list_size": MAX_HEADER_LIST_SIZE,
}
