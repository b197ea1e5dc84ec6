"""What is still to be sent on one connection of HTTP/2, within the windows of the server."""

from collections.abc import Iterable

from tidegate.upstreams.http2 import frames
from tidegate.upstreams.http2.faults import ProtocolBroken
from tidegate.upstreams.http2.stream import Stream

# Larger frames than this are not sent, even where the server allows them.
FRAME_BYTES_MAX = 64 * 1024


class Outbox:
    """Cuts bodies into frames as far as the server takes them.

    Attributes:
        paused: whether nothing more of a body should be sent for now.
    """

    def __init__(self) -> None:
        self.paused = False
        self._window = frames.WINDOW_START
        self._stream_window = frames.WINDOW_START
        self._frame_bytes_max = frames.PAYLOAD_BYTES_MAX
        self._waiting: dict[int, Stream] = {}

    def begin(self, stream: Stream, head: bytes) -> bytes:
        """Return the head of a call as frames, and as much of its body as may go now."""
        stream.window = self._stream_window
        ends = 0 if stream.unsent else frames.END_STREAM
        size = frames.PAYLOAD_BYTES_MAX
        first, rest = head[:size], head[size:]
        flags = ends if rest else ends | frames.END_HEADERS
        sent = bytearray(frames.frame(frames.HEADERS, flags, stream.number, first))
        while rest:
            piece, rest = rest[:size], rest[size:]
            flags = 0 if rest else frames.END_HEADERS
            sent += frames.frame(frames.CONTINUATION, flags, stream.number, piece)
        if stream.unsent:
            self._waiting[stream.number] = stream
            self._cut(stream, sent)
        return bytes(sent)

    def more(self) -> bytes:
        """Return what may go now of all bodies, in the order of their calls."""
        sent = bytearray()
        for stream in [*self._waiting.values()]:
            if self._window <= 0 or self.paused:
                break
            self._cut(stream, sent)
        return bytes(sent)

    def forget(self, stream: Stream) -> None:
        """Send nothing more of this call."""
        self._waiting.pop(stream.number, None)

    def widen(self, more: int) -> None:
        """Hear that the server takes more bytes of all calls together.

        Raises:
            ProtocolBroken: that can't be.
        """
        self._window += more
        if not more or self._window > frames.WINDOW_MAX:
            raise ProtocolBroken("a window that can't be")

    def widen_one(self, stream: Stream, more: int) -> bool:
        """Hear that the server takes more bytes of one call; return whether that can be."""
        stream.window += more
        return more > 0 and stream.window <= frames.WINDOW_MAX

    def heed(self, name: int, value: int, streams: Iterable[Stream]) -> None:
        """Take one of the server's settings.

        Raises:
            ProtocolBroken: it can't be.
        """
        if name == frames.INITIAL_WINDOW_SIZE:
            if value > frames.WINDOW_MAX:
                raise ProtocolBroken("a window that can't be")
            for stream in streams:
                stream.window += value - self._stream_window
            self._stream_window = value
        elif name == frames.MAX_FRAME_SIZE:
            if not frames.PAYLOAD_BYTES_MAX <= value < 2**24:
                raise ProtocolBroken("a size of frames that can't be")
            self._frame_bytes_max = min(value, FRAME_BYTES_MAX)

    def _cut(self, stream: Stream, sent: bytearray) -> None:
        while stream.unsent and not self.paused:
            size = min(len(stream.unsent), stream.window, self._window, self._frame_bytes_max)
            if size <= 0:
                return
            piece, stream.unsent = stream.unsent[:size], stream.unsent[size:]
            stream.window -= size
            self._window -= size
            flags = 0 if stream.unsent else frames.END_STREAM
            sent += frames.frame(frames.DATA, flags, stream.number, bytes(piece))
        if not stream.unsent:
            self._waiting.pop(stream.number, None)
