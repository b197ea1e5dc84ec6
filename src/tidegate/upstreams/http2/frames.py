"""The heads of HTTP/2's frames (RFC 9113, 4.1): where each ends, and what it is.

h2 reads what is in them. It is handed one frame at a time, for it tells nothing of the frames
that came together with a wrong one; and it would wait for the whole of one that is too large.
"""

from typing import NamedTuple

from tidegate.upstreams.http2.faults import ProtocolBroken

HEAD_BYTES = 9
PAYLOAD_BYTES_MAX = 16_384  # Of a frame that is sent to us; the least that the protocol allows.
STREAM_ID_MAX = 2**31 - 1

DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
GOAWAY, WINDOW_UPDATE, CONTINUATION = 7, 8, 9

ACK, END_HEADERS = 0x1, 0x4


class Frame(NamedTuple):
    """One frame; `whole` is all of it, head included."""

    kind: int
    flags: int
    stream: int
    whole: bytes


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
            ProtocolBroken: it is larger than allowed.
        """
        held = self._bytes
        if len(held) < HEAD_BYTES:
            return None
        size = int.from_bytes(held[:3], "big")
        if size > PAYLOAD_BYTES_MAX:
            raise ProtocolBroken("it sent a frame that is larger than allowed")
        end = HEAD_BYTES + size
        if len(held) < end:
            return None
        whole = bytes(held[:end])
        del held[:end]
        stream = int.from_bytes(whole[5:9], "big") & STREAM_ID_MAX
        return Frame(whole[3], whole[4], stream, whole)
