"""What is said on one connection of HTTP/2: calls begin, frames come in, replies are whole.

Nothing here does I/O or knows the time. What a server may do to one call ends that call; what
breaks the rules of the protocol is raised, and ends them all.
"""

import struct
from collections.abc import Callable
from typing import Protocol

from tidegate.domain.errors import ConnectFailed, ReplyBroken, ReplyTooLarge, UpstreamFault
from tidegate.upstreams.base import Call, Receiver, Reply
from tidegate.upstreams.http2 import frames
from tidegate.upstreams.http2.faults import NotProcessed, ProtocolBroken
from tidegate.upstreams.http2.frames import Frame
from tidegate.upstreams.http2.heads import ReplyFields
from tidegate.upstreams.http2.hpack import Unpacker
from tidegate.upstreams.http2.outbox import Outbox
from tidegate.upstreams.http2.stream import Stream
from tidegate.upstreams.settings import Limits

# Frames that bring no reply further, between one reply and the next.
CHATTER_MAX = 10_000
# How much the server may send before it hears that it was read.
UNREPORTED_BYTES_MAX = 2**29


class Carrier(Protocol):
    """Who sends what is said here, and watches the time."""

    def write(self, data: bytes) -> None:
        """Send bytes, if the connection is open."""
        ...

    def answer(self, data: bytes) -> None:
        """Send what the server asked for.

        Raises:
            ProtocolBroken: it asks for more than it takes.
        """
        ...

    def greeted(self) -> None:
        """Hear that the server's first settings came: calls may be sent."""
        ...

    def went_on(self, stream: Stream) -> None:
        """Hear that more of a reply came."""
        ...

    def settled(self) -> None:
        """Hear that a call is over, or that there may be room for more of them."""
        ...


class Dialogue:
    """Both sides of what is said on one connection.

    Attributes:
        streams: the calls under way, by the number of their stream.
        is_greeted: whether the server's first settings came.
        is_leaving: whether no other call may begin.
        is_used: whether a reply has come on it.
        outbox: what is still to be sent.
    """

    def __init__(self, limits: Limits, carrier: Carrier) -> None:
        self.streams: dict[int, Stream] = {}
        self.is_greeted = False
        self.is_leaving = False
        self.is_used = False
        self.outbox = Outbox()
        self._limits = limits
        self._carrier = carrier
        self._unpacker = Unpacker()
        self._fields = ReplyFields(limits)
        self._next_number = 1
        self._streams_max = limits.streams_max
        self._block: bytearray | None = None
        self._block_of: Frame | None = None
        self._chatter = 0
        self._unreported = 0

    @property
    def is_fresh(self) -> bool:
        """Say whether no call has begun yet."""
        return self._next_number == 1

    @property
    def has_room(self) -> bool:
        """Say whether another call may begin."""
        return (
            self.is_greeted
            and not self.is_leaving
            and self._next_number <= frames.STREAM_ID_MAX
            and len(self.streams) < self._streams_max
        )

    def greeting(self) -> bytes:
        """Return what we say first: that we speak HTTP/2, and how much we take."""
        limits = self._limits
        return (
            frames.PREFACE
            + frames.settings_frame(
                enable_push=0,
                initial_window_size=min(
                    frames.WINDOW_MAX, frames.WINDOW_START + 2 * limits.body_bytes_max
                ),
                max_header_list_size=limits.header_bytes_max + 32 * limits.header_count_max,
            )
            + frames.window_frame(0, frames.WINDOW_MAX - frames.WINDOW_START)
        )

    def begin(self, call: Call, receiver: Receiver) -> Stream:
        """Make room for a call; its head is to be sent by `outbox`."""
        assert self.has_room, "a call on a full connection"
        stream = Stream(self._next_number, call, receiver, self, self._fields, self._limits)
        self._next_number += 2
        self.streams[stream.number] = stream
        return stream

    def drop(self, stream: Stream) -> None:
        """End a call that nobody waits for any more, and tell the server."""
        if self.streams.get(stream.number) is stream:
            self._carrier.write(frames.reset_frame(stream.number, frames.CANCEL))
            self._forget(stream)

    def fail(self, stream: Stream, fault: UpstreamFault, *, tell: bool = True) -> None:
        """End a call with a fault; `tell` the server, if it does not know."""
        if tell:
            self._carrier.write(frames.reset_frame(stream.number, frames.CANCEL))
        self._forget(stream)
        stream.receiver.on_reply(fault)

    def take(self, frame: Frame) -> None:
        """Take the next frame of the server.

        Raises:
            ProtocolBroken: it may not be, or not here.
            ReplyTooLarge: headers that can't even be skipped.
        """
        if not self.is_greeted and (frame.kind != frames.SETTINGS or frame.flags & frames.ACK):
            raise ProtocolBroken("something before its settings")
        if self._block is not None and frame.kind != frames.CONTINUATION:
            raise ProtocolBroken("something in the middle of headers")
        handler = _HANDLERS.get(frame.kind)
        if handler is None:
            self._count_chatter()
        else:
            handler(self, frame)

    def _on_data(self, frame: Frame) -> None:
        self._report(frame.size)
        stream = self._stream_of(frame)
        ends = bool(frame.flags & frames.END_STREAM)
        if stream is None or not (frame.payload or ends):
            self._count_chatter()
            return
        self._carry(stream, lambda: stream.on_data(frame.payload, ends=ends))

    def _on_headers(self, frame: Frame) -> None:
        self._stream_of(frame)  # Its number has to be one of ours.
        self._block, self._block_of = bytearray(), frame
        self._add_block(frame)

    def _on_continuation(self, frame: Frame) -> None:
        begun = self._block_of
        if self._block is None or begun is None or begun.stream != frame.stream:
            raise ProtocolBroken("more of headers that never began")
        self._count_chatter()
        self._add_block(frame)

    def _add_block(self, frame: Frame) -> None:
        begun, block = self._block_of, self._block
        assert begun is not None, "headers of no call"
        assert block is not None, "headers of no call"
        block += frame.payload
        bytes_max = self._limits.header_bytes_max
        if len(block) > bytes_max + frames.PAYLOAD_BYTES_MAX:
            # They can't be skipped: what later ones mean depends on them.
            raise _head_too_large(bytes_max)
        if not frame.flags & frames.END_HEADERS:
            return
        self._block = self._block_of = None
        fields = self._unpacker.unpack(bytes(block), bytes_max)
        stream = self.streams.get(begun.stream)
        if stream is None:
            self._count_chatter()
        elif fields is None:
            self.fail(stream, _head_too_large(bytes_max))
        else:
            ends = bool(begun.flags & frames.END_STREAM)
            self._carry(stream, lambda: stream.on_headers(fields, ends=ends))

    def _on_reset(self, frame: Frame) -> None:
        code = _number(frame, 4, 0xFFFF_FFFF)
        stream = self._stream_of(frame)
        if stream is None:
            self._count_chatter()
        elif code == frames.REFUSED_STREAM:
            self.fail(stream, NotProcessed("The upstream refused the call."), tell=False)
        elif code == frames.HTTP_1_1_REQUIRED:
            self.fail(stream, stranger("wants this call by HTTP/1.1"), tell=False)
        else:
            fault = ReplyBroken(f"The upstream broke its reply off (HTTP/2 error {code}).")
            self.fail(stream, fault, tell=False)

    def _on_settings(self, frame: Frame) -> None:
        self._count_chatter()
        if frame.stream or len(frame.payload) % 6 or (frame.flags & frames.ACK and frame.payload):
            raise ProtocolBroken("settings that can't be read")
        if frame.flags & frames.ACK:
            return
        for name, value in struct.iter_unpack(">HI", frame.payload):
            if name == frames.MAX_CONCURRENT_STREAMS:
                self._streams_max = min(value, self._limits.streams_max)
            else:
                self.outbox.heed(name, value, self.streams.values())
        self._carrier.answer(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._carrier.write(self.outbox.more())
        if not self.is_greeted:
            self.is_greeted = True
            self._carrier.greeted()
        self._carrier.settled()

    def _on_ping(self, frame: Frame) -> None:
        self._count_chatter()
        if frame.stream or len(frame.payload) != 8:  # noqa: PLR2004 -- as the protocol has it
            raise ProtocolBroken("a ping that can't be read")
        if not frame.flags & frames.ACK:
            self._carrier.answer(frames.frame(frames.PING, frames.ACK, 0, frame.payload))

    def _on_goaway(self, frame: Frame) -> None:
        if frame.stream or len(frame.payload) < 8:  # noqa: PLR2004 -- as the protocol has it
            raise ProtocolBroken("a farewell that can't be read")
        last = int.from_bytes(frame.payload[:4], "big") & frames.STREAM_ID_MAX
        for stream in [*self.streams.values()]:
            if stream.number > last:
                text = "The upstream closed its connection before it took the call."
                self.fail(stream, NotProcessed(text), tell=False)
        self.is_leaving = True
        self._carrier.settled()

    def _on_window(self, frame: Frame) -> None:
        self._count_chatter()
        more = _number(frame, 4, frames.WINDOW_MAX)
        if not frame.stream:
            self.outbox.widen(more)
        else:
            stream = self._stream_of(frame)
            if stream is not None and not self.outbox.widen_one(stream, more):
                self.fail(stream, ReplyBroken("The upstream's window can't be."))
        self._carrier.write(self.outbox.more())

    def _on_push(self, frame: Frame) -> None:
        raise ProtocolBroken(f"a reply that nobody asked for on the call {frame.stream}")

    # Calls

    def _stream_of(self, frame: Frame) -> Stream | None:
        """Return the call of a frame; None where it is over.

        Raises:
            ProtocolBroken: there never was one.
        """
        number = frame.stream
        if not number % 2 or number >= self._next_number:
            raise ProtocolBroken("something for a call that was never made")
        return self.streams.get(number)

    def _carry(self, stream: Stream, step: Callable[[], Reply | None]) -> None:
        """Take one step of a call, and hand its reply or fault over if it was the last."""
        stream.heard = True
        try:
            reply = step()
        except UpstreamFault as fault:
            self.fail(stream, fault)
            return
        if reply is None:
            self._carrier.went_on(stream)
            return
        self.is_used = True
        self._chatter = 0
        if stream.unsent:
            # It was answered before it was read; the rest is not worth sending.
            self._carrier.write(frames.reset_frame(stream.number, frames.NO_ERROR))
        self._forget(stream)
        stream.receiver.on_reply(reply)

    def _forget(self, stream: Stream) -> None:
        del self.streams[stream.number]
        self.outbox.forget(stream)
        self._carrier.settled()

    def _report(self, size: int) -> None:
        self._unreported += size
        if self._unreported > UNREPORTED_BYTES_MAX:
            self._carrier.write(frames.window_frame(0, self._unreported))
            self._unreported = 0

    def _count_chatter(self) -> None:
        self._chatter += 1
        if self._chatter > CHATTER_MAX:
            raise ProtocolBroken(f"more than {CHATTER_MAX} frames that say nothing")


_HANDLERS: dict[int, Callable[[Dialogue, Frame], None]] = {
    frames.DATA: Dialogue._on_data,  # noqa: SLF001 -- the table of this very class
    frames.HEADERS: Dialogue._on_headers,  # noqa: SLF001
    frames.RST_STREAM: Dialogue._on_reset,  # noqa: SLF001
    frames.SETTINGS: Dialogue._on_settings,  # noqa: SLF001
    frames.PUSH_PROMISE: Dialogue._on_push,  # noqa: SLF001
    frames.PING: Dialogue._on_ping,  # noqa: SLF001
    frames.GOAWAY: Dialogue._on_goaway,  # noqa: SLF001
    frames.WINDOW_UPDATE: Dialogue._on_window,  # noqa: SLF001
    frames.CONTINUATION: Dialogue._on_continuation,  # noqa: SLF001
}


def _number(frame: Frame, size: int, mask: int) -> int:
    if len(frame.payload) != size:
        raise ProtocolBroken("a frame of the wrong size")
    return int.from_bytes(frame.payload, "big") & mask


def _head_too_large(bytes_max: int) -> ReplyTooLarge:
    return ReplyTooLarge(
        f"The reply's headers are larger than {bytes_max} bytes (header_bytes_max)."
    )


def stranger(what: str) -> ConnectFailed:
    """Return the fault of a server that does not speak HTTP/2, with how to mend it."""
    return ConnectFailed(f"The upstream {what}: set protocol to http1, or check the URL.")
