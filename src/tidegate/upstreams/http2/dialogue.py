"""What is said on one connection of HTTP/2: calls begin, frames come in, replies are whole.

h2 speaks the protocol; here is what it leaves to its user: which call is meant, what may go when,
and bounds. Nothing here does I/O or knows the time. What is wrong with one reply ends that call;
what breaks the rules of the protocol is raised, and ends them all.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from hpack import HeaderTuple

from tidegate.domain.errors import ConnectFailed, ReplyBroken, UpstreamFault
from tidegate.upstreams.base import Call, Receiver, Reply
from tidegate.upstreams.http2.client import STREAM_ID_MAX, HeadTooLarge, Http2Client
from tidegate.upstreams.http2.faults import NotProcessed, ProtocolBroken
from tidegate.upstreams.http2.frames import Frame
from tidegate.upstreams.http2.heads import ReplyFields, head_too_large
from tidegate.upstreams.http2.stream import Stream
from tidegate.upstreams.settings import Limits

# Frames that bring no reply further, between one reply and the next.
CHATTER_MAX = 10_000
# Larger frames than this are not sent, even where the server allows them.
FRAME_BYTES_MAX = 64 * 1024


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
        is_paused: whether nothing more of a body should be sent for now.
    """

    def __init__(self, limits: Limits, carrier: Carrier) -> None:
        self.streams: dict[int, Stream] = {}
        self.is_greeted = False
        self.is_leaving = False
        self.is_used = False
        self.is_paused = False
        self._limits = limits
        self._carrier = carrier
        self._protocol = Http2Client(limits)
        self._fields = ReplyFields(limits)
        self._streams_max = limits.streams_max
        self._waiting: dict[int, Stream] = {}
        self._chatter = 0
        self._carried = False

    @property
    def is_fresh(self) -> bool:
        """Say whether no call has begun yet."""
        return not self._protocol.highest_outbound_stream_id

    @property
    def has_room(self) -> bool:
        """Say whether another call may begin."""
        return (
            self.is_greeted
            and not self.is_leaving
            and self._protocol.highest_outbound_stream_id < STREAM_ID_MAX
            and len(self.streams) < self._streams_max
        )

    def greet(self) -> None:
        """Say that we speak HTTP/2, and how much we take."""
        self._protocol.greet()
        self._flush()

    def begin(self, call: Call, head: Sequence[HeaderTuple], receiver: Receiver) -> Stream:
        """Send the head of a call, and as much of its body as may go now."""
        assert self.has_room, "a call on a full connection"
        number = self._protocol.get_next_available_stream_id()
        stream = Stream(number, call, receiver, self, self._fields, self._limits)
        self.streams[number] = stream
        self._protocol.send_headers(number, head, end_stream=not call.body)
        if stream.unsent:
            self._waiting[number] = stream
            self._cut(stream)
        self._flush()
        return stream

    def send_more(self) -> None:
        """Send what may go now of all bodies, in the order of their calls."""
        for stream in [*self._waiting.values()]:
            if self.is_paused:
                break
            self._cut(stream)

    def drop(self, stream: Stream) -> None:
        """End a call that nobody waits for any more, and tell the server."""
        if self.streams.get(stream.number) is stream:
            self._reset(stream, ErrorCodes.CANCEL)
            self._forget(stream)

    def fail(self, stream: Stream, fault: UpstreamFault, *, tell: bool = True) -> None:
        """End a call with a fault; `tell` the server, if it does not know."""
        if tell:
            self._reset(stream, ErrorCodes.CANCEL)
        self._forget(stream)
        stream.receiver.on_reply(fault)

    def take(self, frame: Frame) -> None:
        """Take the next frame of the server.

        Raises:
            ProtocolBroken: it may not be, or not here.
        """
        self._carried = False
        for event in self._events(frame):
            self._hear(event)
        if answers := self._protocol.data_to_send():
            self._carrier.answer(answers)
        if not self._carried:
            self._count_chatter()

    def _events(self, frame: Frame) -> Sequence[Event]:
        try:
            return self._protocol.read(frame)
        except HeadTooLarge as exc:
            stream = self.streams.get(exc.stream)
            if stream is not None:
                fault = head_too_large(self._limits.header_bytes_max)
                self.fail(stream, fault, tell=False)
            raise

    def _hear(self, event: Event) -> None:
        match event:
            case InformationalResponseReceived():
                self._on_headers(event, ends=False)
            case ResponseReceived() | TrailersReceived():
                self._on_headers(event, ends=event.stream_ended is not None)
            case DataReceived():
                self._on_data(event)
            case StreamReset():
                self._on_reset(event)
            case RemoteSettingsChanged():
                self._on_settings()
            case ConnectionTerminated():
                self._on_farewell(event.last_stream_id or 0)
            case WindowUpdated():
                self.send_more()
            case _:
                pass  # It asks nothing of us, or h2 has answered it.

    def _on_headers(
        self, event: InformationalResponseReceived | ResponseReceived | TrailersReceived, *,
        ends: bool,
    ) -> None:  # fmt: skip
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            self._carry(stream, lambda: stream.on_headers(event.headers, ends=ends), ends=ends)

    def _on_data(self, event: DataReceived) -> None:
        self._protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        stream = self.streams.get(event.stream_id)
        ends = event.stream_ended is not None
        if stream is not None and (event.data or ends):
            self._carry(stream, lambda: stream.on_data(event.data, ends=ends), ends=ends)

    def _on_reset(self, event: StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        code = event.error_code
        fault: UpstreamFault = ReplyBroken(
            f"The upstream broke its reply off (HTTP/2 error {int(code)})."
        )
        if not event.remote_reset:
            fault = ReplyBroken("The upstream's window can't be.")
        elif code == ErrorCodes.REFUSED_STREAM:
            fault = NotProcessed("The upstream refused the call.")
        elif code == ErrorCodes.HTTP_1_1_REQUIRED:
            fault = stranger("wants this call by HTTP/1.1")
        self.fail(stream, fault, tell=False)

    def _on_settings(self) -> None:
        theirs = self._protocol.remote_settings.max_concurrent_streams
        self._streams_max = min(theirs, self._limits.streams_max)
        self.send_more()
        if not self.is_greeted:
            self.is_greeted = True
            self._carrier.greeted()
        self._carrier.settled()

    def _on_farewell(self, last: int) -> None:
        # Who hears of one call may begin or abandon others at once.
        self.is_leaving = True
        for number in [it for it in self.streams if it > last]:
            stream = self.streams.get(number)
            if stream is not None:
                text = "The upstream closed its connection before it took the call."
                self.fail(stream, NotProcessed(text), tell=False)
        self._carrier.settled()

    # Calls

    def _carry(self, stream: Stream, step: Callable[[], Reply | None], *, ends: bool) -> None:
        """Take one step of a call, and hand its reply or fault over if it was the last."""
        self._carried = stream.heard = True
        try:
            reply = step()
        except UpstreamFault as fault:
            # Where both sides have said all, nobody is left to tell.
            self.fail(stream, fault, tell=not ends or bool(stream.unsent))
            return
        if reply is None:
            self._carrier.went_on(stream)
            return
        self.is_used = True
        self._chatter = 0
        if stream.unsent:
            # It was answered before it was read; the rest is not worth sending.
            self._reset(stream, ErrorCodes.NO_ERROR)
        self._forget(stream)
        stream.receiver.on_reply(reply)

    def _cut(self, stream: Stream) -> None:
        """Send of a body what the server takes now, a piece at a time: each may pause us."""
        number, protocol = stream.number, self._protocol
        frame_bytes_max = min(protocol.max_outbound_frame_size, FRAME_BYTES_MAX)
        while stream.unsent and not self.is_paused:
            room = protocol.local_flow_control_window(number)
            size = min(len(stream.unsent), room, frame_bytes_max)
            if size <= 0:
                break
            piece, stream.unsent = stream.unsent[:size], stream.unsent[size:]
            protocol.send_data(number, piece, end_stream=not stream.unsent)
            self._flush()
        if not stream.unsent:
            self._waiting.pop(number, None)

    def _reset(self, stream: Stream, code: ErrorCodes) -> None:
        self._protocol.reset_stream(stream.number, code)
        self._flush()

    def _forget(self, stream: Stream) -> None:
        del self.streams[stream.number]
        self._waiting.pop(stream.number, None)
        self._carrier.settled()

    def _flush(self) -> None:
        if data := self._protocol.data_to_send():
            self._carrier.write(data)

    def _count_chatter(self) -> None:
        self._chatter += 1
        if self._chatter > CHATTER_MAX:
            raise ProtocolBroken(f"it sent more than {CHATTER_MAX} frames that say nothing")


def stranger(what: str) -> ConnectFailed:
    """Return the fault of a server that does not speak HTTP/2, with how to mend it."""
    return ConnectFailed(f"The upstream {what}: set protocol to http1, or check the URL.")
